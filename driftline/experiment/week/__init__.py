"""A week that runs itself: what is due when, the reports, the alarms between them, and who is told.

From `schedule` and `notices`, which decide, by `outbox` and `sources` up to `runner`.
"""
