"""Processes that are started, waited for, tailed and ended: workers, Apache Kafka, Redis.

What a worker does is in its room.
"""
