"""Before an experiment: how many users or days it needs, from what it is known by, and A/A replays.

Nothing here reads an experiment that runs.
"""
