"""The snapshot directory: full snapshots, deltas, the index, what is kept and what is live.

Who makes snapshots is `trainer`; who serves them is `serving`.
"""
