"""The A/B room's proofs and figures; `python -m benchmarks.abtest` runs all of them.

What must hold on every commit is a test.
"""
