"""The stream's figures beside its peers and ceilings; `python -m benchmarks.stream` runs all of them.

What must hold on every commit is a test.
"""
