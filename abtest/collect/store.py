"""A state on disk: one NumPy archive that also holds the Kafka offsets which the state includes.

State and offsets are one file, replaced atomically: after a crash both are of the same moment, so no event is lost or
counted twice.
"""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from abtest.collect.records import Response, Shown, Tally
from abtest.collect.state import Request, Rules, State, User
from contracts.config.settings import Settings
from contracts.runtime.durable import StateError, replace_file

FORMAT = 3
OF_NO_MATTER = {"hypothesis", "owner", "ramp", "metrics", "analysis"}  # to what a state holds
TALLY = len(Tally._fields)


@dataclass
class Saved:
    """A state with its place in the log. Keys are ``"topic:partition"``."""

    state: State
    offsets: dict[str, int] = field(default_factory=dict)  # of the next record to read
    newest_ms: dict[str, int] = field(default_factory=dict)  # newest event time read


def path_of(settings: Settings) -> Path:
    """Where the worker keeps its state."""
    return settings.state / "abtest.npz"


def load_state(settings: Settings) -> State:
    """The state that the worker saved; an empty one where it has saved none.

    Raises:
        StateError: the file is damaged, or belongs to another experiment or build.

    """
    return load(path_of(settings), Rules.of(settings)).state


def save(saved: Saved, path: Path) -> None:
    """Write atomically: a reader, or a crash, meets the old file or the new one, whole."""
    state = saved.state
    arms = list(state.rules.experiment.arms)
    sources = sorted({source for user in state.users.values() for source in user.sources})
    place = {source: i for i, source in enumerate(sources)}
    replicas = sorted({name for user in state.users.values() for name in user.replicas})
    replica = {name: i for i, name in enumerate(replicas)}
    version = {name: i for i, name in enumerate(state.spans)}
    users = state.users.items()
    header = {
        "format": FORMAT,
        "rules": _fingerprint(state.rules),
        "sources": sources,
        "replicas": replicas,
        "spans": [[*version, *span] for version, span in state.spans.items()],
        "arms": state.arms,
        "plan": state.plan,
        "recalls": [[*key, count] for key, count in state.recalls.items()],
        "counts": state.counts,
        "closed_ms": state.closed_ms,
        "read_ms": state.newest_ms,
        "offsets": saved.offsets,
        "newest_ms": saved.newest_ms,
        "requests": {
            request_id: [request.shown, list(request.responses.values())]
            for request_id, request in state.requests.items()
        },
    }
    buffer = io.BytesIO()
    np.savez(
        buffer,
        header=np.frombuffer(json.dumps(header).encode(), np.uint8),
        arms=_table([(i, arms.index(arm)) for i, user in users for arm in sorted(user.arms)], 2),
        pre=_table([(i, *user.pre) for i, user in users], 1 + TALLY),
        days=_table([(i, day, *tally) for i, user in users for day, tally in user.days.items()], 2 + TALLY),
        sources=_table(
            [(i, place[name], *tally) for i, user in users for name, tally in user.sources.items()], 2 + TALLY
        ),
        ages=_table([(i, age, *tally) for i, user in users for age, tally in user.ages.items()], 2 + TALLY),
        versions=_table(
            [(i, version[name], *tally) for i, user in users for name, tally in user.versions.items()], 2 + TALLY
        ),
        replicas=_table([(i, replica[name]) for i, user in users for name in sorted(user.replicas)], 2),
        sessions=_table([(i, start, end) for i, user in users for start, end in user.sessions], 3),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, buffer.getbuffer())


def load(path: Path, rules: Rules) -> Saved:
    """Read what `save` wrote; an empty state where there is no file.

    Raises:
        StateError: the file is damaged, or belongs to another experiment or build.

    """
    if not path.exists():
        return Saved(State(rules))
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            tables = {name: archive[name] for name in archive.files}
        header = json.loads(tables["header"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StateError(f"{path} is damaged: {error}.") from error
    if header["format"] != FORMAT:
        raise StateError(f"{path} has format {header['format']}; this build reads {FORMAT}.")
    if header["rules"] != _fingerprint(rules):
        raise StateError(
            f"{path} was written for another experiment or other settings (arms, weights, salt, period, windows); "
            "read it with those. To collect anew, move it away."
        )
    state = State(
        rules,
        requests={request_id: _request(*pair) for request_id, pair in header["requests"].items()},
        users=_users(tables, list(rules.experiment.arms), header),
        arms={arm: Tally(*tally) for arm, tally in header["arms"].items()},
        recalls=Counter({(arm, model, version): count for arm, model, version, count in header["recalls"]}),
        counts=Counter(header["counts"]),
        closed_ms=header["closed_ms"],
        plan=header.get("plan", {}),
        newest_ms=header["read_ms"],
        spans={(arm, version): (first, last) for arm, version, first, last in header["spans"]},
    )
    return Saved(state, header["offsets"], header["newest_ms"])


def _users(tables: Mapping[str, npt.NDArray[np.int64]], arms: list[str], header: Mapping[str, Any]) -> dict[int, User]:
    sources, replicas = header["sources"], header["replicas"]
    versions = [(arm, version) for arm, version, *_ in header["spans"]]
    users = {user_id: User(pre=Tally(*tally)) for user_id, *tally in tables["pre"].tolist()}
    for user_id, arm in tables["arms"].tolist():
        users[user_id].arms.add(arms[arm])
    for user_id, day, *tally in tables["days"].tolist():
        users[user_id].days[day] = Tally(*tally)
    for user_id, source, *tally in tables["sources"].tolist():
        users[user_id].sources[sources[source]] = Tally(*tally)
    for user_id, age, *tally in tables["ages"].tolist():
        users[user_id].ages[age] = Tally(*tally)
    for user_id, version, *tally in tables["versions"].tolist():
        users[user_id].versions[versions[version]] = Tally(*tally)
    for user_id, name in tables["replicas"].tolist():
        users[user_id].replicas.add(replicas[name])
    for user_id, start, end in tables["sessions"].tolist():
        users[user_id].sessions.append((start, end))
    return users


def _request(shown: list[Any] | None, responses: list[list[Any]]) -> Request:
    read = {response.event_id: response for response in (Response(*fields) for fields in responses)}
    if shown is None:
        return Request(None, read)
    exposure = Shown(*shown)
    return Request(exposure._replace(items=tuple((item, source) for item, source in exposure.items)), read)


def _fingerprint(rules: Rules) -> list[Any]:
    experiment = rules.experiment.model_dump(mode="json", exclude=OF_NO_MATTER)
    fingerprint: list[Any] = json.loads(json.dumps([experiment, *rules[1:]]))
    return fingerprint


def _table(rows: list[tuple[int, ...]], width: int) -> npt.NDArray[np.int64]:
    return np.array(rows, np.int64).reshape(-1, width)
