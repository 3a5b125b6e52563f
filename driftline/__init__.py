"""The `driftline` command: runs a worker, asks a replica, or runs the whole experiment in one go."""
