"""The index of a snapshot: exact inner products over its item vectors."""

import faiss

from contracts.features import Floats


def flat_index(vectors: Floats) -> bytes:
    """A serialized exact inner-product index over item vectors (N, d)."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    content: bytes = faiss.serialize_index(index).tobytes()
    return content
