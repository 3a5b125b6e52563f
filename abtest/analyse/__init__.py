"""From an aggregate to a report as values: estimates over time, checks, the plan's claims, the verdict.

How a report looks is in `abtest.report`.
"""
