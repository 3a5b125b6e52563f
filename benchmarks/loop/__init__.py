"""What the whole loop earns, in the laboratory (docs/lab.md); `python -m benchmarks.loop` measures it.

What must hold on every commit is a test.
"""
