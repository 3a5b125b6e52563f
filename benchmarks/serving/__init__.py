"""Serving's figures, beside a peer where there is one; `python -m benchmarks.serving` runs all of them.

What must hold on every commit is a test.
"""
