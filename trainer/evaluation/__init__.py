"""Progressive validation: how well an example is foreseen before it is learned from, and whether that drifts.

Whether a snapshot may go live is decided in `trainer.gate`.
"""
