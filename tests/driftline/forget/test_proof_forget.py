"""The proof: a running system on Apache Kafka, users who are forgotten amid kills, and a search through everything.

The search here shares nothing with that of `driftline forget`: it reads files, tables, RocksDB, Redis and topics as
bytes and as decoded columns. Before anybody is forgotten it finds every user in every place.
"""

import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import redis
from rocksdict import AccessType, Options, Rdict

from abtest.collect.parts import load_state
from abtest.collect.state import folded
from contracts.config.settings import Settings, dump, parse
from contracts.kafka import bus, consumers
from contracts.messages.ids import id_of_text
from contracts.runtime.clock import DAY_MS, HOUR_MS, SystemClock
from contracts.wire.events_pb2 import ExposedItem, Exposure, Feedback
from driftline.forget.user import varint
from driftline.processes import broker
from driftline.processes.server import Server
from feature_repo.online import reader
from feature_repo.store import apply
from tests.stream.stream_cases import Sender

ITEMS = range(1, 21)
USERS, ROUNDS, A_ROUND, KILLS = 40, 3, 4, 4
WORKERS = {
    "stream": ["stream", "--instance", "a"],
    "archive": ["archive"],
    "trainer": ["trainer"],
    "collector": ["experiment", "collect"],
}
TOPICS = (bus.EXPOSURES, bus.FEEDBACK, bus.EXAMPLES, bus.DEAD_LETTERS)
PLACES = {"stream", "trainer", "collector", "archive", "online store", *TOPICS}
PATIENCE_S = 400.0


class Person:
    """A user with a long number, or with a text id."""

    def __init__(self, place: int, chance: random.Random) -> None:
        self.text = f"person-{place}-{chance.getrandbits(40):x}@example.org" if place % 2 else ""
        self.number = id_of_text(self.text) if self.text else chance.getrandbits(62) | 1 << 62
        encodings = [str(self.number).encode(), self.number.to_bytes(8, "little"), self.number.to_bytes(8, "big")]
        encodings += [(self.number + (1 << 63)).to_bytes(8, "big"), varint(self.number), varint(2 * self.number)]
        self.encodings = encodings + ([self.text.encode()] if self.text else [])

    def occurs_in(self, content: bytes) -> bool:
        return any(each in content for each in self.encodings)

    @property
    def arguments(self) -> list[str]:
        return ["--user-key", self.text] if self.text else [str(self.number)]


class System:
    """All workers as processes, and the settings that they run with."""

    def __init__(self, settings: Settings, home: Path) -> None:
        self.settings, self._home = settings, home
        self.file = home / "settings.yaml"
        dump(settings, self.file)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kills: Counter[str] = Counter()

    def start(self, name: str) -> None:
        with (self._home / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-W", "ignore", "-m", "driftline", *WORKERS[name], "-s", str(self.file)]
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """Kill -9, and start it again."""
        assert self.processes[name].poll() is None, (self._home / f"{name}.log").read_text()[-3000:]
        self.processes[name].kill()
        self.processes[name].wait()
        self.kills[name] += 1
        self.start(name)

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for name, process in self.processes.items():
            assert process.wait(120) == 0, (self._home / f"{name}.log").read_text()[-3000:]

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def forget(self, people: list[Person], *options: str) -> subprocess.Popen[bytes]:
        arguments = [argument for person in people for argument in person.arguments]
        with (self._home / "forget.log").open("ab") as log:
            command = [sys.executable, "-W", "ignore", "-m", "driftline", "forget", *arguments, "-s", str(self.file)]
            return subprocess.Popen([*command, *options], stdout=log, stderr=log)


class Traffic:
    """Pages and what comes of them, as they happen."""

    def __init__(self, settings: Settings, chance: random.Random) -> None:
        self._settings, self._chance, self._sender = settings, chance, Sender(settings.kafka)
        self.watched: dict[int, list[int]] = {}  # items by user, in order
        self.pages: Counter[int] = Counter()

    def items(self) -> None:
        self._sender.items(*ITEMS)

    def page(self, person: Person, *, oddities: bool = False) -> None:
        """One page of which two items are watched; oddities: feedback that waits, and a dead letter."""
        now_ms, name = SystemClock().now_ms(), f"{self._chance.getrandbits(64):016x}"
        named = {"user_key": person.text} if person.text else {"user_id": person.number}
        items = self._chance.sample(ITEMS, 5)
        self._send(
            person,
            bus.EXPOSURES,
            Exposure(
                schema_version=1,
                event_id=f"x{name}",
                request_id=name,
                time_ms=now_ms,
                experiment="e",
                arm="a" if person.number % 2 else "b",
                items=[ExposedItem(item_id=item, source="s") for item in items],
                **named,
            ),
        )
        for place, item in enumerate(items[:2]):
            self._outcome(person, name, item, now_ms + 1 + place)
            self.watched.setdefault(person.number, []).append(item)
        self.pages[person.number] += 1
        if oddities:
            self._outcome(person, f"never{name}", items[0], now_ms)
            self._outcome(person, name, 99, now_ms + 1)
        self._sender.flush()

    def _outcome(self, person: Person, request: str, item: int, at_ms: int) -> None:
        seen = Feedback(
            schema_version=1,
            event_id=f"f{self._chance.getrandbits(64):016x}",
            request_id=request,
            item_id=item,
            time_ms=at_ms,
            play_time_ms=1000,
            effective_view=True,
            **({"user_key": person.text} if person.text else {"user_id": person.number}),
        )
        self._send(person, bus.FEEDBACK, seen)

    def _send(self, person: Person, topic: str, event: Exposure | Feedback) -> None:
        self._sender.send(topic, event.SerializeToString(), person.number, event.time_ms)

    def close(self) -> None:
        self._sender.close()


def contents(settings: Settings, client: redis.Redis | None) -> Iterator[tuple[str, bytes]]:
    """Everything, by place."""
    for home in (settings.state, settings.snapshots, settings.feature_repo):
        for path in sorted(home.rglob("*")):
            if path.is_file():
                yield _place(path), path.read_bytes()
    yield from decoded(settings)
    if client is not None:
        for key in client.scan_iter(count=1000):
            yield "online store", key + b"".join(client.hgetall(key).values())
    for name in TOPICS:
        for where in bus.partitions_of(settings.kafka, [name]):
            for record in consumers.read_to_end(settings.kafka, name, where.partition, 0):
                yield name, (record.key or b"") + b"\0" + (record.value or b"")


def decoded(settings: Settings) -> Iterator[tuple[str, bytes]]:
    """What lies compressed in files."""
    for path in sorted((settings.feature_repo / "data").rglob("*.parquet")):
        rows = pq.read_table(path).to_pylist()
        yield "archive", json.dumps(rows, default=str).encode()
    for home in sorted((settings.state / "stream").glob("0*")):
        db = Rdict(str(home), Options(raw_mode=True), access_type=AccessType.read_only())
        yield "stream", b"\0".join(key + value for key, value in db.items())
        db.close()


def _place(path: Path) -> str:
    parts = {"stream": "stream", "trainer": "trainer", "abtest.npz": "collector"}
    named = next((parts[part] for part in path.parts[::-1] if part in parts), "files")
    return "online store" if path.name.startswith("online.db") else named


def found(settings: Settings, client: redis.Redis | None, people: list[Person]) -> dict[Person, set[str]]:
    places: dict[Person, set[str]] = {person: set() for person in people}
    for place, content in contents(settings, client):
        for person in people:
            if person.occurs_in(content):
                places[person].add(place)
    return places


def settings_of(server: Server, home: Path) -> Settings:
    now_ms = SystemClock().now_ms()
    return parse(
        {
            "kafka": {"bootstrap_servers": server.address, "session_timeout_ms": 6000},
            "feature_repo": str(home / "features"),
            "snapshots": str(home / "snapshots"),
            "state": str(home / "state"),
            "stream": {"session_gap_ms": 5000, "attribution_window_ms": 20_000, "allowed_lateness_ms": 5000},
            "trainer": {
                "model": {"dim": 8, "window": 6, "session_length": 3, "batch_size": 8},
                "replay": {"batches": 1, "size": 500},
                "gate": {"judge": "recall", "window": 50, "user_share": 1.0},
                "publish_every_ms": 24 * HOUR_MS,
                "checkpoint_every_examples": 16,
                "device": "cpu",
            },
            "experiment": {
                "name": "e",
                "salt": "s",
                "start_ms": now_ms - HOUR_MS,
                "end_ms": now_ms + DAY_MS,
                "arms": {"a": {"weight": 1, "model": "two_tower"}, "b": {"weight": 1, "model": "t2diff"}},
                "control": "a",
            },
        }
    )


def wait(done: Callable[[], bool], what: str) -> None:
    pause, until_s = threading.Event(), time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < until_s, what
        pause.wait(1.0)


class Proof:
    """One run: who is forgotten, who is not, and how long each part took."""

    def __init__(self, settings: Settings, home: Path, client: redis.Redis | None, chance: random.Random) -> None:
        self.settings, self._home, self.client, self._chance = settings, home, client, chance
        people = [Person(place, chance) for place in range(USERS)]
        self.gone, self.others = people[: ROUNDS * A_ROUND], people[ROUNDS * A_ROUND :]
        self.traffic, self.system = Traffic(settings, chance), System(settings, home)
        self._pause = threading.Event()

    def begin(self) -> None:
        """Everybody is seen, until each of those to be forgotten is in every place."""
        self.traffic.items()
        for name in WORKERS:
            self.system.start(name)
        for turn in range(4):
            for person in (*self.gone, *self.others):
                self.traffic.page(person, oddities=turn == 3)
        wait(self._all_found, "not everybody is everywhere")

    def _all_found(self) -> bool:
        self.traffic.page(self._chance.choice(self.others))
        with contextlib.suppress(Exception):  # of a file that is replaced while it is read
            places = found(self.settings, self.client, self.gone)
            return all(places[person] >= PLACES for person in self.gone)
        return False

    def forget(self, people: list[Person], *options: str, kills: int = 0) -> float:
        """By the command, while others go on and workers are killed; how long that took, in seconds."""
        begun_s, command = time.monotonic(), self.system.forget(people, "--timeout", "400", *options)
        for _ in range(kills):
            self._pause.wait(self._chance.uniform(0.5, 8.0))
            self.system.kill(self._chance.choice([*WORKERS]))
            self.traffic.page(self._chance.choice(self.others))
        while command.poll() is None:
            self.traffic.page(self._chance.choice(self.others))
            self._pause.wait(1.0)
        assert command.returncode == 0, (self._home / "forget.log").read_text()[-3000:]
        return round(time.monotonic() - begun_s, 1)

    def left(self, people: list[Person]) -> set[str]:
        """Where there is anything of them."""
        return set().union(*found(self.settings, self.client, people).values())

    def come_back(self, person: Person) -> None:
        """One who was forgotten is seen again."""
        self.traffic.watched.pop(person.number)
        for _ in range(2):
            self.traffic.page(person)

    def all_rows_are_whole(self, people: list[Person]) -> bool:
        """Whether the rows in the online store have what was watched, no more and no less."""
        rows = reader(self.settings.feature_repo, 1.0)
        known = rows.read([person.number for person in people])
        rows.close()
        watched = [sorted(self.traffic.watched[person.number]) for person in people]
        return [sorted(row.item_ids) if row else [] for row in known] == watched

    def check_experiment(self, back: Person) -> None:
        """The collector has all that others did, once, and nobody else but who came back."""
        state = folded(load_state(self.settings))
        assert set(state.users) == {person.number for person in [*self.others, back]}
        for person in self.others:
            sums = state.users[person.number].days.values()
            assert sum(day.recalls for day in sums) == self.traffic.pages[person.number]
            assert sum(day.effective_views for day in sums) == len(self.traffic.watched[person.number])
        assert state.counts["users_forgotten"] == len(self.gone)


@pytest.mark.proof
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("online", ["sqlite", "redis"])
def test_nothing_is_left_of_users_who_were_forgotten_amid_kills(
    online: str, apache_of_its_own: Server, redis_server: Server, tmp_path: Path
) -> None:
    settings = settings_of(apache_of_its_own, tmp_path)
    host, port = redis_server.address.split(":")
    client = redis.Redis(host=host, port=int(port), db=7) if online == "redis" else None
    if client is not None:
        client.flushdb()
    broker.prepare(settings.kafka)
    apply(settings.feature_repo, f"{redis_server.address},db=7" if client is not None else None)
    proof = Proof(settings, tmp_path, client, random.Random(f"forget {online}"))
    try:
        proof.begin()
        rounds = [proof.gone[at : at + A_ROUND] for at in range(0, len(proof.gone), A_ROUND)]
        took_s = [proof.forget(asked, kills=KILLS) for asked in rounds]
        took_s.append(proof.forget(proof.gone, "--trim-topics"))
        assert not proof.left(proof.gone)
        back = proof.gone[0]
        proof.come_back(back)
        everybody = [*proof.others, back]
        wait(lambda: proof.all_rows_are_whole(everybody), "rows are not what was watched")
        proof.system.stop()
        assert not proof.left(proof.gone[1:])
        assert proof.left([back]) >= {"stream", "online store", "collector"}
        proof.check_experiment(back)
        print(  # noqa: T201  (figures, with pytest -s)
            f"{online}: {len(proof.gone)} of {USERS} users forgotten amid {sum(proof.system.kills.values())} kills "
            f"{dict(proof.system.kills)}, in {took_s} s, and 0 bytes left; "
            f"{sum(len(proof.traffic.watched[person.number]) for person in proof.others)} views of others whole"
        )
    finally:
        proof.system.end()
        proof.traffic.close()
