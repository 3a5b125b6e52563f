"""Small real snapshots: a real ONNX tower and a real Faiss index, made without torch."""

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from contracts.snapshots import snapshot
from contracts.snapshots.delta import Changes, Delta
from contracts.snapshots.index import EXACT
from contracts.snapshots.snapshot import Manifest, Snapshot


def tower(scale: float) -> bytes:
    """A tower whose user vector is `scale` times the sum of the sequence."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["sequence", "axes"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "scale"], ["user"]),
        ],
        "tower",
        [helper.make_tensor_value_info("sequence", TensorProto.FLOAT, ["batch", 4, 2])],
        [helper.make_tensor_value_info("user", TensorProto.FLOAT, ["batch", 2])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
            helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def make_snapshot(model: str = "two_tower", number: int = 1, rows: int = 6, scale: float = 1.0) -> Snapshot:
    """Items 1..rows on a half circle; item i has been watched i times."""
    angle = np.linspace(0, np.pi, max(rows, 1), dtype=np.float32)[:rows]
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).reshape(rows, 2) * np.float32(scale)
    manifest = Manifest(
        model=model,
        version=snapshot.version_name(number),
        dim=2,
        window=4,
        sampling_seed=number,
        noise_shape=(),
        examples=0,
        shares={},
        offsets={},
        event_time_ms=0,
        metrics={},
    )
    counts = np.arange(1, rows + 1, dtype=np.float32)
    return Snapshot(manifest, tower(scale), np.arange(1, rows + 1), vectors, counts, EXACT)


def make_delta(model: str = "two_tower", number: int = 1, sequence: int = 1) -> Delta:
    """On `make_snapshot`: item 100 + sequence is new, and nobody has watched it; item 1 has been watched so often."""
    base = make_snapshot(model, number)
    changes = Changes(
        np.array([1, 100 + sequence]),
        np.stack([base.item_vectors[0], np.array([sequence, 0], np.float32)]),
        np.array([10 * sequence, 0], np.float32),
        np.empty(0, np.int64),
    )
    return Delta(replace(base.manifest, version=snapshot.version_name(number, sequence)), changes)
