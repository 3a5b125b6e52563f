"""Looking for a user in everything that lies on disk and in the online store, decoded and byte by byte.

Each place is read as its owner reads it, so a user with a short id is found too; and all files are searched for the
id's bytes, in all encodings, where the id is long enough to be told from accident. The archive's files are compressed,
so in them only decoding finds anything.
"""

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from google.protobuf.message import DecodeError

from abtest.collect.parts import files
from contracts.config.settings import Settings
from contracts.runtime.durable import StateError
from contracts.storage.objects import MissingError
from contracts.wire.events_pb2 import Example, Feedback
from contracts.wire.stream_state_pb2 import Outbox, RequestState
from driftline.forget.user import User, chunks
from stream.rocksdb_logs import damaged_log

CHUNK_BYTES = 4 << 20
T = TypeVar("T")
ATTEMPTS = 5  # at what its owner replaces while it is read


class Found(NamedTuple):
    """Something of a user."""

    place: str  # which store
    where: str  # file, or what in it
    what: str


def search(settings: Settings, user: User) -> Iterator[Found]:
    """All that is found of a user in files and in the online store."""
    yield from in_stream(settings, user)
    yield from in_trainer(settings, user)
    yield from in_collector(settings, user)
    yield from in_features(settings, user)
    # Of a store, its cache in `state` is searched; a snapshot has no users.
    folders = [settings.state, settings.snapshot_directory, settings.feature_repo]
    yield from in_files([folder for folder in folders if folder is not None], user)


def in_stream(settings: Settings, user: User) -> Iterator[Found]:
    """In what the partitions' states hold."""
    for home in sorted((settings.state / "stream").glob("[0-9]*")):
        for kind, count in _retried(_in_partition, home, user).items():
            yield Found("stream state", str(home), f"{count} {kind}")


def in_trainer(settings: Settings, user: User) -> Iterator[Found]:
    """In checkpoints: examples to learn from again, the gate's, trials."""
    for path, count in _retried(_in_checkpoints, settings.state / "trainer", user).items():
        yield Found("trainer checkpoint", str(path), f"{count} values")
    if settings.snapshot_directory is None:
        yield from _on_the_store(settings, user)


def _on_the_store(settings: Settings, user: User) -> Iterator[Found]:
    """In checkpoints that lie on a store; one that is dropped meanwhile has nothing any more."""
    from trainer.checkpoint import loads
    from trainer.shelf import shelf_of

    shelf = shelf_of(settings, lambda _: None)
    for number in shelf.numbers():
        with contextlib.suppress(MissingError):
            lines = loads(shelf.state(number))["pupils"].values()
            if count := sum(_in_line(line, user) for line in lines):
                yield Found("trainer checkpoint", f"{shelf.name}/{number:08d}", f"{count} values")


def in_collector(settings: Settings, user: User) -> Iterator[Found]:
    """In what the collector has saved."""
    for path in files(settings).values():
        yield from _in_part(path, user)


def _in_part(path: Path, user: User) -> Iterator[Found]:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
        tables = {name: archive[name] for name in archive.files}
    header = json.loads(tables.pop("header").tobytes())
    rows = sum(int((table[:, 0] == user.number).sum()) for table in tables.values() if table.size)
    if rows and not header.get("anonymous"):
        yield Found("collector state", str(path), f"{rows} rows of sums")
    requests = sum(_in_request(shown, responses, user) for shown, responses in header["requests"].values())
    if requests:
        yield Found("collector state", str(path), f"{requests} open requests")


def in_features(settings: Settings, user: User) -> Iterator[Found]:
    """In Feast's online store and in the archive."""
    from feature_repo import forget

    repo = settings.feature_repo
    if not (repo / "feature_store.yaml").exists():
        return
    if forget.has_row(repo, user.number):
        yield Found("online store", forget.place_of(repo), "a row")
    for path in forget.archived(repo, user.number):
        yield Found("archive", str(path), "rows")


def in_files(homes: Iterable[Path], user: User) -> Iterator[Found]:
    """In the bytes of all files; nothing where the id is too short to be told by bytes."""
    if not user.patterns:
        return
    longest = max(map(len, user.patterns.values()))
    for path in sorted({path for home in homes for path in home.rglob("*") if path.is_file()}):
        with contextlib.suppress(FileNotFoundError):  # replaced or dropped meanwhile
            names = _in_file(path, user, longest)
            if names:
                yield Found("files", str(path), ", ".join(sorted(names)))


def _in_file(path: Path, user: User, overlap: int) -> set[str]:
    with path.open("rb") as file:
        content = chunks(iter(lambda: file.read(CHUNK_BYTES), b""), overlap - 1)
        return {name for chunk in content for name, pattern in user.patterns.items() if pattern in chunk}


def _in_partition(home: Path, user: User) -> dict[str, int]:
    from rocksdict import AccessType, Options, Rdict

    damage = damaged_log(home)
    if damage:
        raise StateError(f"The stream's state in {home} cannot be searched: {damage}.")
    try:
        db = Rdict(str(home), Options(raw_mode=True), access_type=AccessType.read_only())
    except Exception as error:  # RocksDB has no type of its own
        why = " ".join(str(error).split())
        raise StateError(f"The stream's state in {home} cannot be searched: {why}.") from error
    found: dict[str, int] = {}
    try:
        for key, value in db.items():
            kind = _of_entry(cast(bytes, key), cast(bytes, value), user)
            if kind:
                found[kind] = found.get(kind, 0) + 1
    finally:
        db.close()
    return found


def _of_entry(key: bytes, value: bytes, user: User) -> str:
    """What an entry of a partition's state has of a user; empty: nothing."""
    name = (user.number + (1 << 63)).to_bytes(8, "big")
    match key[:1]:
        case b"u" if key[1:] == name:
            return "histories"
        case b"U" if key[9:] == name:
            return "timers"
        case b"r":
            request = RequestState.FromString(value)
            held = any(_user_of(Feedback, each.value, user) for each in request.held)
            return "open requests" if held or request.user_id == user.number else ""
        case b"o":
            return "outboxes" if _in_outbox(Outbox.FromString(value), user) else ""
    return "entries" if user.occurs_in(key + value) else ""


def _in_outbox(outbox: Outbox, user: User) -> bool:
    return (
        user.number in {*outbox.user_ids, *outbox.forgotten_ids, *outbox.expired_ids}
        or any(example.key == user.digits for example in outbox.examples)
        or any(letter.key == user.digits or user.occurs_in(letter.value) for letter in outbox.dead_letters)
    )


def _user_of(kind: Any, content: bytes, user: User) -> bool:
    with contextlib.suppress(DecodeError):
        message = kind.FromString(content)
        return message.user_id == user.number or bool(user.text and getattr(message, "user_key", "") == user.text)
    return False


def _in_checkpoints(home: Path, user: User) -> dict[Path, int]:
    """By those that have the user; of all or, where one is dropped meanwhile, an error."""
    from trainer.checkpoint import loads

    found = {}
    for path in sorted(home.glob("[0-9]*/state.pt")):
        count = sum(_in_line(line, user) for line in loads(path.read_bytes())["pupils"].values())
        if count:
            found[path] = count
    return found


def _in_line(line: dict[str, Any], user: User) -> int:
    """How often one model's state names the user: in examples, and in what the gate and a trial know by user."""
    gate, trial = line["gate"], line["trials"]["trial"] or {"sums": {}, "requests": {}}
    named = [*gate["users"], *(pair[0] for pair in gate["fresh"])]
    named += [*trial["sums"], *(owner for owner, _ in trial["requests"].values())]
    return named.count(user.number) + _examples(line, user)


def _examples(value: Any, user: User) -> int:
    if isinstance(value, dict):
        return sum(_examples(each, user) for each in value.values())
    if isinstance(value, list | tuple):
        return sum(_examples(each, user) for each in value)
    return int(isinstance(value, bytes) and _user_of(Example, value, user))


def _in_request(shown: list[Any] | None, responses: list[list[Any]], user: User) -> bool:
    return (shown is not None and shown[2] == user.number) or any(each[2] == user.number for each in responses)


def _retried(look: Callable[[Path, User], T], path: Path, user: User) -> T:
    """What a look at files gives that their owner may replace meanwhile."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(Exception):  # RocksDB raises nothing more special
            return look(path, user)
    return look(path, user)
