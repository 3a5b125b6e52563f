"""Small settings, items and examples that the trainer's tests share."""

from pathlib import Path
from typing import Any

import numpy as np

from contracts.config.settings import Settings, parse
from contracts.messages.events import SCHEMA_VERSION
from contracts.runtime.clock import HOUR_MS
from contracts.wire.events_pb2 import Example, History, Item
from trainer.data.catalogue import Catalogue

START_MS = 100 * HOUR_MS


def small_settings(root: Path, **trainer: Any) -> Settings:
    model = {"dim": 8, "window": 6, "session_length": 3, "learning_rate": 0.01, "batch_size": 8}
    model |= trainer.pop("model", {})
    return parse(
        {
            "kafka": {"bootstrap_servers": "localhost:1"},
            "feature_repo": str(root / "features"),
            "snapshots": str(root / "snapshots"),
            "state": str(root / "state"),
            "seed": 7,
            "trainer": {"model": model, "publish_every_ms": HOUR_MS, "device": "cpu"} | trainer,
            "experiment": {
                "name": "week",
                "salt": "s",
                "start_ms": START_MS,
                "end_ms": START_MS + 100 * HOUR_MS,
                "arms": {"control": {"weight": 1, "model": "two_tower"}, "treatment": {"weight": 1, "model": "t2diff"}},
                "control": "control",
            },
        }
    )


def make_item(item_id: int) -> Item:
    return Item(schema_version=SCHEMA_VERSION, item_id=item_id, category_ids=[1 + item_id % 3])


def make_catalogue(items: int) -> Catalogue:
    catalogue = Catalogue()
    for item_id in range(1, items + 1):
        catalogue.put(item_id, make_item(item_id).category_ids)
    return catalogue


def make_example(history: list[int], target: int, time_ms: int = START_MS, arm: str = "", user_id: int = 1) -> Example:
    """An example whose history was watched effectively, one item a minute."""
    m = len(history)
    return Example(
        schema_version=SCHEMA_VERSION,
        user_id=user_id,
        item_id=target,
        time_ms=time_ms,
        arm=arm,
        sent_at_ms=time_ms,
        history=History(
            item_ids=history,
            times_ms=[time_ms - 60_000 * (m - i) for i in range(m)],
            play_times_ms=[1000] * m,
            effective_views=[True] * m,
            follows=[False] * m,
            sessions=[0] * m,
        ),
    )


def markov_examples(count: int, items: int, seed: int = 0, step_ms: int = 60_000) -> list[Example]:
    """Item i is followed by i + 1 (around): what comes next is a function of the last item alone. Of three examples one
    has no page, one a page of its own, one a page with three more, of which one was watched.
    """
    rng = np.random.default_rng(seed)
    examples = []
    for n in range(count):
        length = int(rng.integers(0, 6))
        first = int(rng.integers(items))
        walk = [1 + (first + i) % items for i in range(length + 1)]
        arm = ("", "control", "treatment")[n % 3]
        example = make_example(walk[:-1], walk[-1], START_MS + n * step_ms, arm, user_id=n + 1)
        beside = sorted({1 + (first + length + i) % items for i in ((0,), (0, 3, 5, 7))[n % 2]}) if n % 3 else []
        example.page.item_ids.extend(beside)
        example.page.effective_views.extend(item in (walk[-1], beside[0]) for item in beside)
        examples.append(example)
    return examples
