"""Whether a snapshot may go live: the decision, its evidence, and the model that is live now.

Writing a snapshot is in `trainer.publish`.
"""
