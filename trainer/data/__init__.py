"""Items, vocabularies and batches as arrays: what a learner is fed.

Nothing here learns, and nothing here reads Kafka (`trainer.input`).
"""
