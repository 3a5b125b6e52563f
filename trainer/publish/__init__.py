"""A learner as a snapshot: the tower as ONNX, vectors, index, manifest.

The format is in `contracts.snapshots`; when to publish is decided in `trainer.publisher`.
"""
