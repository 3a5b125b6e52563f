"""How long the first day takes: docs/first-day.md followed by a program."""
