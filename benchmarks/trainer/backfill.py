"""What `driftline trainer backfill` costs, an example at a time and packed, on histories of KuaiRand-Pure users.

    python -m benchmarks.trainer.backfill --data KUAIRAND_PURE [--users 3000] [--rounds 1]

The views are archived as `driftline archive` writes them, at times that are drawn (the file has none) within 30 days;
items come from memory instead of a broker. Everything else is the command's own work with the default settings: Feast's
historical features, learning, checkpoints, the snapshot at the end. CPU seconds of one thread after a first call that
loads modules, the median of the rounds; `nothing_s` is the same for an archive that is cut after a few examples.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from kafka import TopicPartition

from benchmarks.options import folder
from contracts.config.settings import Settings, parse
from contracts.kafka.consumers import LogReader
from contracts.messages.events import SCHEMA_VERSION
from contracts.messages.placement import key_of
from contracts.runtime.clock import DAY_MS, SystemClock
from contracts.runtime.worker import configure_logs
from contracts.wire.events_pb2 import Example, History, Item
from evaluation import kuairand
from evaluation.data import ItemTable
from feature_repo.offline import EXAMPLES, OfflineFiles, Piece, directory, examples_directory
from feature_repo.store import apply
from stream.archive import FILE_EXAMPLES, entities, rows
from trainer.backfill import backfill
from trainer.input.archive_consumer import Record

RUNS: dict[str, dict[str, Any]] = {
    "two_tower": {"models": ["two_tower"]},
    "t2diff": {"models": ["t2diff"]},
    "t2diff-without-guess": {"models": ["t2diff"], "model": {"without": ["guess"]}},
    "two_tower and t2diff": {"models": ["two_tower", "t2diff"]},
}
LIMIT = 200  # behaviours of a history
BEGIN_MS, SPAN_MS = 1_650_000_000_000, 30 * DAY_MS
A_FEW_MS = DAY_MS // 24


class Announcements(LogReader):
    """A catalogue as a consumer hands it out, all at once."""

    def __init__(self, topic: str, catalogue: ItemTable) -> None:
        self._topic = TopicPartition(topic, 0)
        self._values = [
            (key_of(item_id), Item(schema_version=SCHEMA_VERSION, item_id=item_id, category_ids=categories))
            for item_id, categories in zip(catalogue.item_ids.tolist(), catalogue.categories, strict=True)
        ]
        self._position = 0

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:  # noqa: ARG002
        """All that were not handed out."""
        first, self._position = self._position, len(self._values)
        records = [
            Record(self._topic.topic, 0, first + n, BEGIN_MS, item.SerializeToString(), key)
            for n, (key, item) in enumerate(self._values[first:])
        ]
        return {self._topic: records} if records else {}

    def seek(self, partition: TopicPartition, offset: int) -> None:  # noqa: ARG002
        """Go on from an offset."""
        self._position = offset

    def position(self, partition: TopicPartition) -> int:  # noqa: ARG002
        """The next offset."""
        return self._position

    def end(self, partition: TopicPartition) -> int:  # noqa: ARG002
        """How many there are."""
        return len(self._values)

    def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """None was removed."""
        return dict.fromkeys(partitions, 0)

    def pause(self, *partitions: TopicPartition) -> None:
        """They have all come with the first poll."""

    def resume(self, *partitions: TopicPartition) -> None:
        """See `pause`."""

    def paused(self) -> set[TopicPartition]:
        """None is."""
        return set()

    def commit(self, offsets: dict[TopicPartition, Any], timeout_ms: int) -> None:
        """Nobody watches."""


def examples(source: kuairand.Stream, users: int) -> Iterator[Example]:
    """What so many users, the first by id, viewed effectively before the log, by time, with their features."""
    views: list[tuple[int, int, int]] = []
    for user_id, before in sorted(source.before.items())[:users]:
        times_ms = np.sort(np.random.default_rng(user_id).integers(BEGIN_MS, BEGIN_MS + SPAN_MS, len(before.positives)))
        item_ids = source.catalogue.item_ids[before.positives.rows]
        views += zip(times_ms.tolist(), [user_id] * len(times_ms), item_ids.tolist(), strict=True)
    pasts: dict[int, list[tuple[int, int]]] = {}
    for time_ms, user_id, item_id in sorted(views):
        past = pasts.setdefault(user_id, [])
        same = len(past)
        history = History(
            item_ids=[item for item, _ in past], times_ms=[at_ms for _, at_ms in past], play_times_ms=[0] * same,
            effective_views=[True] * same, follows=[False] * same, sessions=[0] * same,
        )  # fmt: skip
        yield Example(
            schema_version=SCHEMA_VERSION, user_id=user_id, item_id=item_id, time_ms=time_ms, sent_at_ms=time_ms,
            history=history,
        )  # fmt: skip
        past.append((item_id, time_ms))
        del past[:-LIMIT]


def archive(repo: Path, found: list[Example]) -> None:
    """Write examples as `driftline archive` does, into one partition."""
    apply(repo)
    for start in range(0, len(found), FILE_EXAMPLES):
        received = [(example, example.time_ms) for example in found[start : start + FILE_EXAMPLES]]
        end = start + len(received)
        name = Piece(0, start, end).name
        label_rows = entities(received, range(start, end))
        OfflineFiles(examples_directory(repo), schema=EXAMPLES).write(name, [label_rows])
        OfflineFiles(directory(repo)).write(name, [rows(received, LIMIT)])


def settings_for(root: Path, repo: Path, trainer: dict[str, Any]) -> Settings:
    """The defaults, for a trainer without a checkpoint."""
    return parse(
        {
            "kafka": {"bootstrap_servers": "localhost:1", "partitions": 1},
            "feature_repo": str(repo),
            "snapshots": str(root / "snapshots"),
            "state": str(root / "state"),
            "trainer": {"device": "cpu"} | trainer,
            "experiment": {
                "name": "backfill",
                "salt": "backfill",
                "start_ms": BEGIN_MS - DAY_MS,
                "end_ms": BEGIN_MS,
                "arms": {
                    "control": {"weight": 1, "model": trainer["models"][0]},
                    "treatment": {"weight": 1, "model": trainer["models"][-1]},
                },
                "control": "control",
            },
        }
    )


def learn(repo: Path, catalogue: ItemTable, trainer: dict[str, Any], **how: Any) -> tuple[float, int]:
    """CPU seconds of a backfill into a new trainer, and how many examples it learned."""
    with TemporaryDirectory() as root:
        settings = settings_for(Path(root), repo, trainer)
        items: Any = Announcements(settings.kafka.topic("items"), catalogue)
        no_letters: Any = None  # every example can be used
        begun = time.process_time()
        learned = backfill(
            settings, items, no_letters, SystemClock(), threading.Event(),
            **{"start_ms": None, "end_ms": None} | how,
        )  # fmt: skip
        return time.process_time() - begun, learned


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer.backfill", description=__doc__)
    parser.add_argument("--data", type=folder, required=True, help="KuaiRand-Pure folder")
    parser.add_argument("--users", type=int, default=3000, help="whose histories are learned from, the first by id")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--runs", default=",".join(RUNS), help="some of: " + ", ".join(RUNS))
    options = parser.parse_args(arguments)
    configure_logs(quiet=True)  # the figures are what is printed
    source = kuairand.stream(options.data, histories=True)
    found = [*examples(source, options.users)]
    figures: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as scratch:
        repo = Path(scratch)
        archive(repo, found)
        for name in options.runs.split(","):
            few = {"end_ms": BEGIN_MS + A_FEW_MS}
            learn(repo, source.catalogue, RUNS[name], **few)
            taken: dict[str, list[float]] = {}
            for _ in range(options.rounds):
                for way, how in (("nothing_s", few), ("one_by_one_s", {"one_by_one": True}), ("packed_s", {})):
                    taken.setdefault(way, []).append(learn(repo, source.catalogue, RUNS[name], **how)[0])
            seconds = {way: median(each) for way, each in taken.items()}
            ratio = (seconds["one_by_one_s"] - seconds["nothing_s"]) / (seconds["packed_s"] - seconds["nothing_s"])
            whole = seconds["one_by_one_s"] / seconds["packed_s"]
            figures[name] = {way: round(each, 2) for way, each in (seconds | {"ratio": ratio, "whole": whole}).items()}
    shape = {"users": options.users, "views": len(found), "items": source.catalogue.item_ids.size}
    print(json.dumps({"shape": shape, "cpu": figures, "torch": torch.__version__}, indent=1))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
