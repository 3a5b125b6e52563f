"""Two publishers, a rollback and retention at once, over thousands of interleavings: nothing is lost or done twice.

The actors run the real code over real conditional writes; at each call to the store a seed draws whose turn it is, and
a share of the writes times out after it was done, or before.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.config.store import Location, StoreSettings
from contracts.snapshots import retention, snapshot, state, stored
from contracts.snapshots.snapshot import MANIFEST, SnapshotError
from contracts.snapshots.state import State
from contracts.storage.objects import Objects, Stat
from contracts.storage.remote import connect
from tests.contracts.snapshot_cases import make
from tests.contracts.store_cases import Turns, Unsteady

MODEL = "two_tower"
LOST = 0.15  # of the writes


class Race:
    """One interleaving, and every state in the order in which they were written."""

    def __init__(self, seed: int, real: Objects, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.turns = Turns(seed)
        self.states: list[State] = []
        self.real = real
        self.published: dict[str, bool] = {}
        unsteady = Unsteady(real, self.turns, LOST, self._written)
        patch.setattr(stored, "connect", lambda _: unsteady)
        patch.setattr(stored, "TRANSFERS", 1)
        stored.room_of.cache_clear()
        self._folder = folder

    def root(self, name: str) -> Location:
        """The store as one process sees it."""
        return Location("memory:///race", StoreSettings(), self._folder / name)

    def publisher(self, name: str, numbers: range, keep: int) -> Callable[[], None]:
        def act() -> None:
            root = self.root(name)
            for number in numbers:
                version = snapshot.version_name(number)
                try:
                    snapshot.write(root, make(version))
                    self.published[version] = snapshot.publish(root, MODEL, version)
                except SnapshotError:  # the other one's retention took it for old
                    self.published[version] = False
                retention.prune(root, MODEL, keep, 0)

        return act

    def people(self) -> None:
        root = self.root("people")
        for reason in ("first", "second"):
            target = snapshot.live(root, MODEL)
            if target is None:
                continue
            try:
                retention.roll_back(root, MODEL, target, reason)
            except SnapshotError:  # it is gone by now
                continue
            assert retention.release(root, MODEL)

    def _written(self, key: str, content: bytes) -> None:
        if not key.endswith(state.STATE):
            return
        now = state.loads(content, key)
        before = self.states[-1] if self.states else State()
        assert now.serial == before.serial + 1
        assert now.pointers.live == before.pointers.live or now.pointers.live not in now.removing
        if before.pointers.held and now.pointers.held == before.pointers.held:
            assert now.pointers.live == before.pointers.live  # a hold holds
        self.states.append(now)

    def check(self) -> None:
        pairs = list(zip([State(), *self.states], self.states, strict=False))
        moved = [
            now.pointers.live
            for before, now in pairs
            if now.pointers.live != before.pointers.live and not now.pointers.held
        ]
        # A publication is one move; what was said to have failed has moved nothing.
        assert sorted(filter(None, moved)) == sorted(name for name, done in self.published.items() if done)
        assert self.states[-1].removing == ()
        reader = stored.Stored(self.real, "reader", self._folder / "reader")
        live = reader.live(MODEL)
        assert live is not None
        for version in reader.versions(MODEL):  # all that is there is whole, and what is live is there
            manifest = snapshot.parse_manifest(MODEL, str(version), reader.manifest(MODEL, str(version)))
            assert reader.directory(MODEL, str(version), manifest.checksums).is_dir()
        assert reader.complete(MODEL, live)


def race(seed: int, real: Objects) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        run = Race(seed, real, patch, Path(folder))
        actors = {
            "one": run.publisher("one", range(1, 6, 2), keep=1),
            "two": run.publisher("two", range(2, 7, 2), keep=1),
            "people": run.people,
        }
        errors = run.turns.run(actors)
        assert not errors, f"seed {seed}: {errors}"
        run.check()
        stored.room_of.cache_clear()


def in_memory(seeds: range) -> None:
    for seed in seeds:
        connect.cache_clear()
        race(seed, connect(Location("memory:///race", StoreSettings(), Path("unused"))))


def test_nothing_is_lost_or_doubled() -> None:
    in_memory(range(200))


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_nothing_is_lost_or_doubled_over_thousands() -> None:
    in_memory(range(10_000, 15_000))


def test_nothing_is_lost_or_doubled_on_a_real_server(s3_location: Location) -> None:
    for seed in range(10):
        each = Location(f"{s3_location.url}/{seed}", s3_location.store, s3_location.cache)
        race(seed, connect(each))


def test_what_a_crash_has_left_is_not_taken_from_who_writes_it_again(tmp_path: Path) -> None:
    """One has listed it as left over; meanwhile the trainer that crashed is back and publishes the same version."""
    connect.cache_clear()
    stored.room_of.cache_clear()
    root = Location("memory:///race", StoreSettings(), tmp_path / "trainer")
    real = connect(root)
    snapshot.write(root, make("v000001"))
    real.delete([f"{MODEL}/v000001/{MANIFEST}"])  # as after a crash before the last step

    class Behind:
        """The store as a slow remover sees it: its first listing is from before, and by it all files are old."""

        listed = False

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def under(self, prefix: str) -> list[Stat]:
            before = real.under(prefix)
            if self.listed:
                return before
            self.listed = True
            snapshot.write(root, make("v000001"))
            assert snapshot.publish(root, MODEL, "v000001")
            return [*before, Stat(f"{MODEL}/{state.STATE}", 1, before[0].written_ms + stored.ORPHAN_MS + 1)]

    objects: Any = Behind()
    assert stored.Stored(objects, "memory:///race", tmp_path / "remover").remove(MODEL, lambda _: []) == []
    assert snapshot.live(root, MODEL) == "v000001"
    assert snapshot.read(root, MODEL, "v000001").item_ids.size
    stored.room_of.cache_clear()
