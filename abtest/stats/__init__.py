"""Estimators and tests over moments of users, as pure functions with their sources.

Nothing here knows of files, events or experiments' files beyond the metrics that one declares.
"""
