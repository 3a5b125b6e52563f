"""A user tower as an ONNX graph: exported once per architecture, then only its weights are replaced.

Tracing a U-Net takes seconds; putting new weights into the graph takes milliseconds, so a snapshot is never held up.
"""

import contextlib
import io
import logging
import warnings

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from trainer.models.base import UserEncoder
from trainer.publish.canonical_graph import canonical

INPUTS = ("sequence", "mask", "lag", "noise")
OUTPUT = "user"
TRACED_BATCH = 2  # any size above 1: the axis is dynamic, and 1 would be taken for a constant


class ExportError(Exception):
    """The exported graph does not carry the encoder's weights by name, so it could not be kept up to date."""


class TowerTemplate:
    """The graph of one architecture, to be filled with weights.

    Inputs `sequence` (B, n, d), `mask` (B, n), `lag` (B, n) and, where the encoder takes noise, `noise`
    (B, *noise_shape); output `user` (B, d). An input that the encoder does not use is absent from the graph.
    """

    def __init__(self, encoder: UserEncoder, dim: int, window: int) -> None:
        """Trace the encoder.

        Raises:
            ExportError: a weight has no initializer of its name in the graph.

        """
        self._model = _without_unused_inputs(canonical(_anonymous(_trace(encoder, dim, window)), INPUTS))
        self._places = {tensor.name: tensor for tensor in self._model.graph.initializer}
        missing = sorted(encoder.weights().keys() - self._places.keys())
        if missing:
            raise ExportError(f"The exported graph has no initializer {', '.join(missing)}.")

    def fill(self, encoder: UserEncoder) -> bytes:
        """The graph with the encoder's present weights; equal weights give equal bytes."""
        for name, weight in encoder.weights().items():
            array = np.ascontiguousarray(weight.detach().cpu().numpy())
            self._places[name].CopyFrom(numpy_helper.from_array(array, name))
        content: bytes = self._model.SerializeToString(deterministic=True)
        return content


def _trace(encoder: UserEncoder, dim: int, window: int) -> onnx.ModelProto:
    device = next(encoder.parameters()).device
    shapes = [(window, dim), (window,), (window,), encoder.noise_shape]
    example = tuple(torch.zeros(TRACED_BATCH, *shape, device=device) for shape in shapes)
    batch = torch.export.Dim("batch")
    quiet = io.StringIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # The exporter warns about its own dependencies and prints its progress; neither says anything about our graph.
    with warnings.catch_warnings(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            encoder.eval(),
            example,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes=({0: batch},) * len(INPUTS),
            dynamo=True,
            optimize=False,  # folding constants would merge weights away, and `fill` needs each by its name
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned no program.")
    return program.model_proto


def _anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """Strip what the exporter notes down about the source: paths and stack traces have no place in a snapshot."""
    del model.metadata_props[:]
    graph = model.graph
    del graph.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
    return model


def _without_unused_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    used = {name for node in model.graph.node for name in node.input}
    inputs = [value for value in model.graph.input if value.name in used]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model
