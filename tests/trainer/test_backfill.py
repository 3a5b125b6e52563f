"""Learning from the archive one by one, and the hand-over to the stream; packed in `test_packed_backfill`."""

import threading
from pathlib import Path
from typing import Any

import pytest

from contracts.config.settings import Settings, SettingsError
from contracts.runtime.clock import MINUTE_MS, ManualClock
from contracts.snapshots.snapshot import live, read_manifest
from contracts.wire.events_pb2 import Example
from feature_repo.offline import EXAMPLES as ENTITIES
from feature_repo.offline import OfflineFiles, Piece, directory, examples_directory
from feature_repo.store import apply
from stream.archive import entities, rows
from tests.trainer.conftest import MakeRig
from tests.trainer.test_resume import assert_equal
from tests.trainer.trainer_cases import START_MS, markov_examples, small_settings
from tests.trainer.trainer_rig import EXAMPLES, MemoryLog, Outbox
from trainer.backfill import NEVER_MS, backfill

pytestmark = pytest.mark.usefixtures("trace_once")
COUNT, EACH = 200, 25  # examples in all; of a partition in a file


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature repository whose archive holds the first 75 examples of each partition."""
    target = tmp_path_factory.mktemp("features")
    apply(target)
    for partition, examples in split().items():
        for start in range(0, 75, EACH):
            name = Piece(partition, start, start + EACH).name
            received = [(example, example.time_ms) for example in examples[start : start + EACH]]
            table = entities(received, range(start, start + EACH))
            OfflineFiles(examples_directory(target), schema=ENTITIES).write(name, [table])
            OfflineFiles(directory(target)).write(name, [rows(received, 200)])
    return target


def split() -> dict[int, list[Example]]:
    found: dict[int, list[Example]] = {0: [], 1: []}
    for example in markov_examples(COUNT, 12):
        found[example.user_id % 2].append(example)
    return found


def fill(log: MemoryLog) -> None:
    for item_id in range(1, 13):
        log.append_item(item_id)
    for partition, examples in split().items():
        for example in examples:
            log.append(EXAMPLES[partition], example.SerializeToString(), example.time_ms)


def settings_for(root: Path, repo: Path, **trainer: Any) -> Settings:
    quiet = {"publish_every_ms": NEVER_MS, "checkpoint_every_examples": 40} | trainer
    return small_settings(root, **quiet).model_copy(update={"feature_repo": repo})


def run(settings: Settings, **times: Any) -> int:
    """Fill a trainer from the archive; its items come from a log in memory."""
    clock = ManualClock(START_MS)
    log = MemoryLog(50, clock)
    fill(log)
    log.pause(*EXAMPLES)  # as a consumer that reads items alone
    parts: Any = (settings, log, Outbox(), clock, threading.Event())
    return backfill(*parts, **{"start_ms": None, "end_ms": None, "one_by_one": True} | times)


def test_learned_from_the_archive_and_then_the_stream_is_as_from_the_stream_alone(
    tmp_path: Path, repo: Path, make_rig: MakeRig
) -> None:
    alone = make_rig(settings_for(tmp_path / "alone", repo))
    fill(alone.log)
    alone.steps(60)

    settings = settings_for(tmp_path / "filled", repo)
    learned = run(settings)
    assert learned == 144  # of 150, in whole batches of 8
    assert live(settings.snapshots, "t2diff") == "v000001"
    assert read_manifest(settings.snapshots, "t2diff", "v000001").metrics["examples"] == learned
    after = make_rig(settings)
    fill(after.log)
    after.worker.resume()
    after.steps(60)
    assert alone.engine.tested == after.engine.tested >= COUNT - 8
    for a, b in zip(alone.engine.lines, after.engine.lines, strict=True):
        # They publish different versions, and so the sampling noise of the coming one differs.
        states = [line.learner.state() | {"sampling_seed": None} for line in (a, b)]
        assert_equal(*states, at_least=20)
        assert a.shares == b.shares
    assert alone.engine.offsets == after.engine.offsets


def test_from_and_to_cut_at_event_times_and_the_rest_is_left_to_the_stream(tmp_path: Path, repo: Path) -> None:
    settings = settings_for(tmp_path, repo)
    learned = run(settings, start_ms=START_MS + 20 * MINUTE_MS, end_ms=START_MS + 100 * MINUTE_MS)
    assert learned == 80
    manifest = read_manifest(settings.snapshots, "two_tower", "v000001")
    assert manifest.offsets == {"driftline.examples:0": 50, "driftline.examples:1": 50}
    again = run(settings)
    assert again == 150 - 100 - (150 - 100) % 8


def test_a_start_is_refused_where_a_checkpoint_says_where_to_go_on(tmp_path: Path, repo: Path) -> None:
    settings = settings_for(tmp_path, repo)
    run(settings)
    with pytest.raises(SettingsError, match=r"has a checkpoint in .* and goes on from it"):
        run(settings, start_ms=START_MS)


def test_an_archive_that_is_empty_or_has_a_hole_is_refused(tmp_path: Path) -> None:
    repo = tmp_path / "features"
    apply(repo)
    with pytest.raises(SettingsError, match="Nothing is archived"):
        run(settings_for(tmp_path, repo))
    for start in (0, 50):
        OfflineFiles(directory(repo)).write(Piece(0, start, start + EACH).name, [])
    with pytest.raises(SettingsError, match=r"lacks p00000-.*25\.parquet, though its features are there"):
        run(settings_for(tmp_path, repo))
    for start in (0, 50):
        OfflineFiles(examples_directory(repo), schema=ENTITIES).write(Piece(0, start, start + EACH).name, [])
    with pytest.raises(SettingsError, match=r"lacks what comes between p00000-.*25\.parquet and p00000-"):
        run(settings_for(tmp_path, repo))
