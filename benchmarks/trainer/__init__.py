"""The trainer's figures beside its peer; `python -m benchmarks.trainer` runs its main parts.

What must hold on every commit is a test.
"""
