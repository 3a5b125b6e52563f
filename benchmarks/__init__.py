"""Benchmarks: what driftline does in a second, beside what others do with the same input.

Nothing here is needed to run driftline, and no other package imports it.
"""
