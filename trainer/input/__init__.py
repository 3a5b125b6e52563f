"""Items and examples in one order that a restart repeats, from Kafka or from the archive.

What is done with them is decided in `trainer.engine`.
"""
