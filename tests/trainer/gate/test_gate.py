"""The gate on small streams that go wrong: a chain of items, of which a model knows the next one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from contracts.config.settings import GateSettings, ModelSettings, TrainerSettings
from contracts.runtime.clock import MINUTE_MS
from contracts.snapshots.snapshot import Snapshot
from contracts.wire.events_pb2 import Example
from tests.trainer.trainer_cases import make_catalogue, markov_examples
from trainer.data.batches import encode
from trainer.gate.decision import Verdict
from trainer.gate.gate import Gatekeeper
from trainer.learn.learner import Learner
from trainer.publish.onnx_export import TowerTemplate
from trainer.publish.snapshots import manifest_of, snapshot_of

ITEMS, EVERY, WARM = 12, 256, 8
SETTINGS = ModelSettings(dim=8, window=6, session_length=3, learning_rate=0.02, batch_size=32)
GATE = GateSettings(
    judge="recall",
    k=2,
    margin=0.05,
    window=EVERY,
    anchor=200,
    anchor_half_life_ms=2 * EVERY * MINUTE_MS,
    patience_ms=4 * EVERY * MINUTE_MS,
)


@pytest.fixture(scope="module")
def template(_traced: dict[tuple[type, int, int], TowerTemplate]) -> TowerTemplate:
    encoder = Learner("two_tower", TrainerSettings(model=SETTINGS), 0, torch.device("cpu")).model.encoder
    key = (type(encoder), SETTINGS.dim, SETTINGS.window)
    if key not in _traced:
        _traced[key] = TowerTemplate(encoder, SETTINGS.dim, SETTINGS.window)
    return _traced[key]


class Rig:
    """A learner and its gate on one stream; publishes every so many examples."""

    def __init__(self, template: TowerTemplate, every: int = EVERY) -> None:
        self.every = every
        self.catalogue = make_catalogue(ITEMS)
        self.learner = Learner("two_tower", TrainerSettings(model=SETTINGS), 0, torch.device("cpu"))
        self.learner.follow(self.catalogue)
        self.template = template
        self.gate = Gatekeeper(GATE, SETTINGS.window, 0, torch.device("cpu"))
        self.version, self.live = 0, 0
        self.good = [e for e in markov_examples(10_000, ITEMS) if e.history.item_ids]
        self.at = 0

    def next(self, count: int) -> list[Example]:
        """The next good examples."""
        self.at += count
        return self.good[self.at - count : self.at]

    def learn(self, examples: Sequence[Example]) -> list[Verdict]:
        """Test, learn and publish; the verdicts."""
        verdicts = []
        for start in range(0, len(examples), self.every):
            part = examples[start : start + self.every]
            for at in range(0, len(part), 32):
                batch = encode(part[at : at + 32], self.catalogue, SETTINGS.window)
                self.gate.watch(part[at : at + 32], batch, self.learner.evaluate(batch), self.catalogue)
                self.learner.learn(batch)
            verdicts.append(self.gate.judge(self.snapshot(), self.learner, self.catalogue))
            self.live = self.version if verdicts[-1].passed else self.live
        return verdicts

    def snapshot(self) -> Snapshot:
        self.version += 1
        return snapshot_of(self.learner, self.catalogue, self.template, manifest_of(self.learner, self.version))

    def warm(self) -> int:
        """Learn the chain; the version that is live then."""
        verdicts = self.learn(self.next(WARM * EVERY))
        assert verdicts[0].reason == "it is the first"
        assert all(verdict.passed for verdict in verdicts[-3:])
        assert self.live == self.version
        return self.live


@pytest.fixture
def rig(template: TowerTemplate) -> Rig:
    return Rig(template)


def shuffled(rig: Rig, count: int) -> list[Example]:
    examples = rig.next(count)
    labels = np.random.default_rng(0).permutation([e.item_id for e in examples]).tolist()
    return [relabelled(e, label) for e, label in zip(examples, labels, strict=True)]


def a_bot_among_them(rig: Rig, count: int) -> list[Example]:
    """Half of the examples are of one user who likes item 7 after whatever it was."""
    examples = rig.next(count)
    for place in range(0, count, 2):
        examples[place] = relabelled(examples[place], 7)
        examples[place].user_id = 10**6
    return examples


def relabelled(example: Example, item_id: int) -> Example:
    twin = Example()
    twin.CopyFrom(example)
    twin.item_id = item_id
    return twin


def backwards(rig: Rig, count: int) -> list[Example]:
    """From now on, item i is followed by i − 1."""
    return [relabelled(e, 1 + (e.history.item_ids[-1] - 2) % ITEMS) for e in rig.next(count)]


Poison = Callable[[Rig, int], list[Example]]


@pytest.mark.parametrize(
    ("poison", "why"),
    [(shuffled, "recall@2 on the anchor is below v000008 by more than 5%"), (a_bot_among_them, "one user made 50%")],
)
def test_what_is_live_does_not_move_while_the_stream_is_poisoned_and_moves_again_afterwards(
    rig: Rig, poison: Poison, why: str
) -> None:
    live = rig.warm()
    poisoned = rig.learn(poison(rig, 3 * EVERY))
    assert [verdict.passed for verdict in poisoned] == [False] * 3
    assert rig.live == live
    assert why in poisoned[0].reason
    passed = [verdict.passed for verdict in rig.learn(rig.next(9 * EVERY))]
    assert passed == sorted(passed)  # it opens once, and stays open
    assert rig.live == rig.version


def test_true_drift_is_held_no_longer_than_patience_lasts_and_the_anchor_turns_over(rig: Rig) -> None:
    rig.warm()
    passed = [verdict.passed for verdict in rig.learn(backwards(rig, 8 * EVERY))]
    reopened = passed.index(True)
    assert 4 <= reopened <= 6  # patience is four publications; then the new normal has to outvote the old
    assert all(passed[reopened:])


def test_a_loss_too_small_to_be_seen_at_each_publication_cannot_add_up(template: TowerTemplate) -> None:
    """Poison in small doses, with a publication after each batch: what is live may go down to the margin, not on."""
    rig = Rig(template)
    live = rig.warm()
    rig.every = 32
    doses = [verdict.passed for _ in range(12) for verdict in rig.learn(shuffled(rig, 24) + rig.next(8))]
    assert doses[:2] == [True, True]
    assert not any(doses[-4:])
    assert live < rig.live < live + 8


def test_a_new_trainer_does_not_replace_what_is_live_before_it_is_as_good(rig: Rig, template: TowerTemplate) -> None:
    rig.warm()
    beginner = Rig(template)
    beginner.gate.set_incumbent(rig.snapshot())
    passed = [verdict.passed for verdict in beginner.learn(beginner.next(WARM * EVERY))]
    assert passed[0] is False
    assert passed[-1] is True


def test_a_model_with_a_weight_that_is_no_number_never_goes_live(rig: Rig) -> None:
    with torch.no_grad():
        next(rig.learner.model.encoder.parameters()).fill_(torch.nan)
    verdict = rig.gate.judge(rig.snapshot(), rig.learner, rig.catalogue)
    assert (verdict.passed, verdict.reason) == (False, "a weight is not finite")


def test_a_gate_that_is_off_lets_everything_pass(template: TowerTemplate) -> None:
    rig = Rig(template)
    rig.gate = Gatekeeper(GateSettings(enabled=False), SETTINGS.window, 0, torch.device("cpu"))
    verdicts = rig.learn(rig.next(2 * EVERY) + shuffled(rig, 2 * EVERY))
    assert [(verdict.passed, verdict.reason) for verdict in verdicts] == [(True, "the gate is off")] * 4


def test_an_item_that_has_left_the_catalogue_does_not_disturb_the_anchor(rig: Rig) -> None:
    rig.warm()
    usual = rig.learn(rig.next(EVERY))[-1].anchor
    assert usual is not None
    rig.catalogue = make_catalogue(ITEMS - 4)
    found = rig.gate.judge(rig.snapshot(), rig.learner, rig.catalogue).anchor
    assert found is not None
    assert found.users < usual.users


def test_a_gate_goes_on_from_its_state_as_if_undisturbed(rig: Rig, template: TowerTemplate) -> None:
    """Through a hold, where everything that it keeps matters."""
    rig.warm()
    rig.learn(shuffled(rig, 2 * EVERY))
    twin = Rig(template)
    twin.learner = rig.learner
    twin.gate.restore(rig.gate.state())
    part, snapshots = rig.next(EVERY), [rig.snapshot() for _ in range(2)]
    found: list[list[Any]] = [[], []]
    for each, mine in ((rig, found[0]), (twin, found[1])):
        for at in range(0, EVERY, 32):
            batch = encode(part[at : at + 32], rig.catalogue, SETTINGS.window)
            each.gate.watch(part[at : at + 32], batch, rig.learner.evaluate(batch), rig.catalogue)
        mine += [each.gate.judge(snapshot, rig.learner, rig.catalogue) for snapshot in snapshots]
    assert found[0] == found[1]
    assert found[0][0].fresh is not None
    assert not found[0][0].passed


def test_a_candidate_is_judged_by_what_would_be_served_and_not_by_the_learner(rig: Rig) -> None:
    """As with a delta, whose vectors are served under the tower of its base."""
    rig.warm()
    made = rig.snapshot()
    verdict = rig.gate.judge(replace(made, item_vectors=made.item_vectors[::-1].copy()), rig.learner, rig.catalogue)
    assert not verdict.passed
    assert "on the anchor" in verdict.reason


def test_what_the_incumbent_is_known_to_hit_is_what_it_hits_when_asked_again(rig: Rig, template: TowerTemplate) -> None:
    rig.warm()
    rig.learn(rig.next(EVERY))
    twin = Rig(template)
    state = rig.gate.state()
    assert len(state["hits"]) > 100
    twin.gate.restore(state | {"hits": state["hits"][:0]})
    made = rig.snapshot()
    known, asked = (gate.judge(made, rig.learner, rig.catalogue) for gate in (rig.gate, twin.gate))
    assert known == asked


def test_what_the_incumbent_chose_itself_does_not_judge(rig: Rig) -> None:
    """Half of the traffic is what the incumbent would show; a better candidate passes only if that half is left out."""
    rig.warm()
    settings = GATE.model_copy(update={"anchor": 1})
    verdicts = []
    for may_judge in (False, True):
        gate = Gatekeeper(settings, SETTINGS.window, 0, torch.device("cpu"))
        gate.set_incumbent(rig.snapshot())
        examples = rig.next(GATE.window)
        own = np.arange(len(examples)) % 2 == 0
        batch = encode(examples, rig.catalogue, SETTINGS.window)
        foresight = rig.learner.evaluate(batch)
        ranks = np.where(own, 1000, foresight.ranks)  # of another list than the one that was shown
        gate.watch(examples, batch, foresight._replace(ranks=ranks), rig.catalogue, None if may_judge else ~own)
        verdicts.append(gate.judge(rig.snapshot(), rig.learner, rig.catalogue))
    assert [verdict.passed for verdict in verdicts] == [True, False]
    assert "on fresh examples" in verdicts[1].reason
