"""One model that learns batch by batch: towers, losses, optimizers.

Networks of users are in `trainer.models`; when to learn is decided in `trainer.engine`.
"""
