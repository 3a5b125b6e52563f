import faiss
import numpy as np

from contracts.index import flat_index


def test_the_index_finds_by_inner_product() -> None:
    vectors = np.array([[1, 0], [0, 1], [3, 0]], np.float32)
    index = faiss.deserialize_index(np.frombuffer(flat_index(vectors), np.uint8))
    _, rows = index.search(np.array([[1, 0.5]], np.float32), 3)
    assert rows.tolist() == [[2, 0, 1]]
