"""A trainer on a real S3 server: it publishes, keeps checkpoints, goes on after a crash, and stops once fenced out."""

from pathlib import Path

import pytest

from contracts.config.settings import Settings
from contracts.config.store import Location, Root
from contracts.snapshots import delta, snapshot
from driftline.forget.stores import in_trainer
from driftline.forget.user import User
from tests.trainer.trainer_cases import markov_examples, small_settings
from tests.trainer.trainer_rig import Rig
from trainer import publisher, shelf
from trainer.shelf import FencedError

pytestmark = pytest.mark.usefixtures("trace_once")


@pytest.fixture
def settings(s3_location: Location, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of a trainer whose lease is over as soon as it is looked at."""
    monkeypatch.setattr(shelf, "LEASE_S", 0.02)
    monkeypatch.setattr(shelf, "LOOK_S", 0.01)
    small = small_settings(s3_location.cache, deltas_every_s=None)
    return small.model_copy(
        update={
            "snapshots": s3_location.url,
            "store": s3_location.store.model_copy(update={"cache": s3_location.cache}),
        }
    )


def filled(settings: Settings, before: Rig | None = None) -> Rig:
    rig = Rig(settings, log=before.log if before else None)
    if before is None:
        rig.add_items(12)
        rig.add_examples(markov_examples(200, 12))
    return rig


def state_of(rig: Rig) -> bytes:
    from trainer.checkpoint import digest

    return digest(rig.engine.state())


def test_it_publishes_and_goes_on_from_its_checkpoint(settings: Settings) -> None:
    rig = filled(settings)
    rig.worker.begin()
    rig.steps(20)
    rig.worker.publish_now()
    rig.worker.keep()
    root = settings.snapshot_root
    version = snapshot.live(root, "two_tower")
    assert version is not None
    assert delta.read(root, "two_tower", version).item_ids.size == 12
    assert list(in_trainer(settings, User(1)))  # whoever is to be forgotten is looked for there, too
    assert not list(in_trainer(settings, User(10**9)))
    kept = state_of(rig)
    rig.close()
    again = filled(settings, rig)
    assert again.worker.resume()
    assert state_of(again) == kept
    assert snapshot.models(root) == ["t2diff", "two_tower"]  # checkpoints are no model
    again.close()


def test_the_one_that_was_taken_over_from_writes_nothing(settings: Settings) -> None:
    first = filled(settings)
    first.worker.begin()
    second = filled(settings, first)  # as the first one's host gives no sign of life for the lease
    before = {model: snapshot.versions(settings.snapshot_root, model) for model in ("t2diff", "two_tower")}

    def go_on() -> None:
        first.steps(20)
        first.worker.publish_now()

    for act in (go_on, lambda: first.checkpoints.write(first.engine.state())):
        with pytest.raises(FencedError, match="has taken over"):
            act()
    assert {model: snapshot.versions(settings.snapshot_root, model) for model in before} == before
    assert second.worker.resume()
    first.close()
    second.close()


def test_who_is_taken_over_from_while_it_writes_a_snapshot_moves_no_pointer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, root = filled(settings), settings.snapshot_root
    first.worker.begin()
    while snapshot.live(root, "two_tower") is None:
        first.steps(1)
    first.worker.publish_now()
    before = {model: snapshot.live(root, model) for model in ("t2diff", "two_tower")}
    others: list[Rig] = []

    def slowly(root: Root, made: snapshot.Snapshot) -> Path:
        if not others:
            others.append(filled(settings, first))  # its network was cut for the lease, and is back
        return snapshot.write(root, made)

    monkeypatch.setattr(publisher, "write", slowly)
    first.add_examples(markov_examples(400, 12)[200:])
    with pytest.raises(FencedError, match="has taken over"):
        first.steps(100)
    assert {model: snapshot.live(root, model) for model in before} == before
    first.close()
    others[0].close()
