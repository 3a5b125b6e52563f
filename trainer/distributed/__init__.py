"""Several processes that learn as one: collectives, and partitions shared between ranks.

A single process uses the same interface with one rank.
"""
