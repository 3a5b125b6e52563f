"""Bytes under keys of an object store: read conditionally, created if absent, swapped by ETag.

What is kept there is not known here (`contracts.snapshots`, `trainer.checkpoint`).
"""
