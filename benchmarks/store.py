"""Snapshots on a store beside a disk: seal, fetch, an unchanged poll, and from publication to served.

    python -m benchmarks.store --json [--items 20000] [--rounds 30]

Both are measured in turn in one run, on a real S3 server (versitygw) on this machine's loopback and the disk below it:
what differs is the protocol, not the medium. No polling interval is in the times: the swapper looks at once.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from pydantic import SecretStr

from benchmarks.serving import world as worlds
from contracts.config.settings import Arm, Experiment, KafkaSettings, Settings, StoreSettings
from contracts.config.store import Root
from contracts.runtime.clock import SystemClock
from contracts.runtime.worker import configure_logs
from contracts.snapshots import delta, snapshot
from contracts.snapshots.delta import Delta
from contracts.snapshots.room import open_room
from contracts.snapshots.snapshot import Snapshot, version_name
from driftline.processes import s3
from serving.metrics import ServingMetrics
from serving.swapper import Swapper

MODEL = "two_tower"
KEYS = ("benchmark", "the-key-of-a-benchmark")
POLLS = 300
CLOCK = SystemClock()


def timed(act: Callable[[], object]) -> float:
    """How long it took, in ms."""
    began = CLOCK.elapsed_s()
    act()
    return (CLOCK.elapsed_s() - began) * 1000


class Place:
    """A disk or a store, a replica on it, and what was measured."""

    def __init__(self, settings: Settings) -> None:
        self.root: Root = settings.snapshot_root
        self._cache = settings.store.cache
        self._swapper = Swapper(settings, list, ServingMetrics(), CLOCK)
        self._loop = asyncio.new_event_loop()
        self.ms: dict[str, list[float]] = {name: [] for name in ("seal", "fetch", "swap", "delta_swap", "poll")}

    def round(self, made: Snapshot, change: Delta, number: int) -> None:
        """A full snapshot is sealed, fetched by a reader without a cache, and served; then a delta on it."""
        self.ms["seal"].append(timed(lambda: snapshot.write(self.root, made)))
        if self._cache:
            shutil.rmtree(self._cache, ignore_errors=True)
        self.ms["fetch"].append(timed(lambda: delta.read(self.root, MODEL, version_name(number))))
        if self._cache:
            shutil.rmtree(self._cache, ignore_errors=True)
        self.ms["swap"].append(timed(lambda: self._serve(version_name(number))))
        delta.write(self.root, change)
        self.ms["delta_swap"].append(timed(lambda: self._serve(version_name(number, 1))))

    def polls(self) -> None:
        """Looks at pointers that have not moved."""
        room = open_room(self.root)
        self.ms["poll"] += [timed(lambda: room.glance(MODEL)) for _ in range(POLLS)]

    def close(self) -> None:
        """Let the replica go."""
        self._swapper.close()
        self._loop.close()

    def _serve(self, version: str) -> None:
        snapshot.publish(self.root, MODEL, version)
        self._loop.run_until_complete(self._swapper.check())
        serves = self._swapper.models.get(MODEL)
        if serves is None or serves.manifest.version != version:
            raise RuntimeError(f"{version} is not served: {self._swapper.status()[0].error}")


def settings(snapshots: str, folder: Path, store: StoreSettings) -> Settings:
    """Settings of a replica with one model."""
    arms = {name: Arm(weight=1, model=MODEL) for name in ("a", "b")}
    return Settings(
        kafka=KafkaSettings(bootstrap_servers="nowhere:1"),
        feature_repo=folder,
        snapshots=snapshots,
        store=store,
        state=folder,
        experiment=Experiment(name="e", salt="s", start_ms=0, end_ms=1, arms=arms, control="a"),
    )


def measure(items: int, rounds: int, folder: Path) -> dict[str, object]:
    """All figures of one run."""
    world = worlds.World(items=items, users=1)
    s3.install(s3.default_home())
    with s3.start(s3.default_home(), folder / "s3", *KEYS) as server:
        s3.bucket(server.directory, "bucket")
        store = StoreSettings(
            endpoint=f"http://{server.address}",
            region=s3.REGION,
            access_key_id=KEYS[0],
            secret_access_key=SecretStr(KEYS[1]),
            cache=folder / "cache",
        )
        places = {
            "disk": Place(settings(str(folder / "disk"), folder, StoreSettings())),
            "s3": Place(settings("s3://bucket/snapshots", folder, store)),
        }
        for number in range(1, rounds + 1):
            made = worlds.full(world, MODEL, number)
            change = worlds.moved(made, 0.05, 1)
            for place in places.values():
                place.round(made, change, number)
        for place in places.values():
            place.polls()
        for place in places.values():
            place.close()
    figures = {
        name: {step: {"p50_ms": middle(ms), "p99_ms": late(ms)} for step, ms in place.ms.items()}
        for name, place in places.items()
    }
    return {
        "items": items,
        "rounds": rounds,
        "unchanged_poll_ms": figures["s3"]["poll"]["p50_ms"],
        "ratio_p50": ratios(figures, "p50_ms"),
        "ratio_p99": ratios(figures, "p99_ms"),
        **figures,
    }


def ratios(figures: Mapping[str, Mapping[str, Mapping[str, float]]], which: str) -> dict[str, float]:
    """Each step's time on the store over that on the disk."""
    return {step: round(each[which] / figures["disk"][step][which], 2) for step, each in figures["s3"].items()}


def middle(ms: list[float]) -> float:
    """The median."""
    return round(statistics.median(ms), 3)


def late(ms: list[float]) -> float:
    """The 99th percentile; of fewer than a hundred, nearly the largest."""
    return round(float(np.quantile(ms, 0.99)), 3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    configure_logs(quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.items, arguments.rounds, Path(folder))
    if arguments.json:
        print(json.dumps(found, indent=1))  # noqa: T201
        return
    for name in ("disk", "s3"):
        print(name, json.dumps(found[name]))  # noqa: T201


if __name__ == "__main__":
    main()
