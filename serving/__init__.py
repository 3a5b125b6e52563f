"""Snapshot + Feast → `Recall`. Needs neither torch nor model code."""
