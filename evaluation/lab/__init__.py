"""The laboratory: a whole simulated week in one process, for policies side by side. docs/lab.md is the manual.

Nothing in here decides what the live system decides: joins are `stream.step`'s, learning and gates the trainer's
engine's, answers `serving.answer`'s. What is left out is Kafka, Feast, gRPC, and with them every wait.
"""
