"""Who sees which arm, and what came of it: assignment, mergeable state, statistics, report.

Reads exposures and feedback, never model code. The unit of every statistic is the user; there is no way to ask for an
event-level test.
"""
