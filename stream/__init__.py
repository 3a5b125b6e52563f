"""Kafka → join → sessions → Feast + training examples.

The logic is pure steps over a state (`join`, `sessions`, `step`); Kafka and Feast are at the rim (`worker`).
"""
