"""Regimes of learning side by side on one stream, and the choice among them by how well each foresees it."""
