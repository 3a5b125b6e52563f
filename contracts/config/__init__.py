"""Settings and experiments' files: read, checked, explained in one sentence where they are wrong.

Nothing here reads the environment or the clock.
"""
