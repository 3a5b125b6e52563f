"""Kafka clients made one way for all rooms, and why a broker refuses them.

What is sent and when offsets are committed is decided in the rooms.
"""
