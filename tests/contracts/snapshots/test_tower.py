"""A replica and the gate give a user one vector: what the gate judges is what would be served."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts.config.settings import ModelSettings, TrainerSettings
from contracts.features import positives
from contracts.wire.events_pb2 import Example
from serving.model import NOTHING_KEPT, LoadedModel, Want
from tests.trainer.trainer_cases import make_catalogue, markov_examples
from trainer.data.batches import encode
from trainer.gate.served_model import Served
from trainer.learn.learner import Learner
from trainer.publish.onnx_export import TowerTemplate
from trainer.publish.snapshots import manifest_of, snapshot_of

ITEMS, WINDOW = 12, 6
CPU = torch.device("cpu")
WAITS_MS = (0, 999, 12_345, 600_000, 3_600_000, 30 * 86_400_000)


def asking() -> list[Example]:
    """Users who come back after seconds to weeks, some without a history."""
    examples = markov_examples(30, ITEMS)
    for n, example in enumerate(examples):
        example.time_ms += WAITS_MS[n % len(WAITS_MS)] - 60_000
    return examples


def want_of(example: Example) -> Want:
    """The request that the user of an example makes at its time."""
    history = example.history
    watched = positives(np.array(history.item_ids), np.array(history.times_ms), np.array(history.effective_views, bool))
    return Want(example.user_id, watched, NOTHING_KEPT, example.time_ms, 3, ())


@pytest.mark.parametrize(
    ("name", "ablate"),
    [("two_tower", ()), ("t2diff", ()), pytest.param("t2diff", ("mean-start",), id="t2diff, which takes noise")],
)
def test_a_replica_and_the_gate_give_a_user_the_same_vector(name: str, ablate: tuple[str, ...]) -> None:
    shape = ModelSettings.model_validate(
        {"dim": 8, "window": WINDOW, "session_length": 3, "batch_size": 8, "ablate": ablate}
    )
    learner, catalogue = Learner(name, TrainerSettings(model=shape), 7, CPU), make_catalogue(ITEMS)
    learner.follow(catalogue)
    learner.learn(encode(markov_examples(40, ITEMS), catalogue, WINDOW))
    template = TowerTemplate(learner.model.encoder, shape.dim, WINDOW)
    snapshot = snapshot_of(learner, catalogue, template, replace(manifest_of(learner, 1), sampling_seed=3))

    examples = asking()
    batch = encode(examples, catalogue, WINDOW)
    assert not np.allclose(batch.lag, batch.served_lag, atol=1e-3), "waits that rounding does not move show nothing"
    in_gate = Served.of(snapshot, CPU).users(batch, catalogue)
    in_replica = LoadedModel(snapshot).user_vectors([want_of(example) for example in examples])
    np.testing.assert_allclose(in_gate, in_replica, rtol=0, atol=1e-6)
