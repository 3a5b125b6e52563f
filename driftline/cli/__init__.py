"""The `driftline` command: what is asked, what is printed, exit codes.

What a subcommand does is in the rooms and in the other wings.
"""
