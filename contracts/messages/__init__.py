"""What crosses a process border on Kafka: decoded, checked, or a dead letter with its reason.

Generated classes are in `contracts.wire`.
"""
