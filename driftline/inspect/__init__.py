"""What lies there: snapshots as the command lists, verifies and compares them; which build this is.

Nothing here changes a snapshot (`contracts.snapshots.retention`).
"""
