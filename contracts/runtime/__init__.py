"""What every process stands on: the clock, logs, metrics, signals, durable files.

Nothing here knows of recommendations.
"""
