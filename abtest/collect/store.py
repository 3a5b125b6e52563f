"""A state on disk: one NumPy archive that also holds the Kafka offsets which the state includes.

State and offsets are one file, replaced atomically: after a crash both are of the same moment, so no event is lost or
counted twice.
"""

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from abtest.collect.records import EventSums, ExposureRecord, Response
from abtest.collect.rules import Rules
from abtest.collect.state import CollectorState, OpenRequest, UserRecord
from contracts.config.changes import Change
from contracts.messages.forget import Mark, Marks
from contracts.runtime import arrays
from contracts.runtime.clock import Clock
from contracts.runtime.durable import DAMAGED, StateError, replace_file

FORMAT = 5
BEFORE_SERVED = 4  # an earlier format: what was served was what was shown
SUMS = len(EventSums._fields)
SAVE_EVERY_S = 5.0


@dataclass
class Saved:
    """A state with its place in the log. Keys are ``"topic:partition"``."""

    state: CollectorState
    offsets: dict[str, int] = field(default_factory=dict)  # of the next record to read
    newest_ms: dict[str, int] = field(default_factory=dict)  # newest event time read
    forgot: bool = False  # whether a user was let go of since the state was saved: it is saved at once


class Saves:
    """When a state is saved: every `SAVE_EVERY_S`, and for a tenth of the time at most, as it grows with its users."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """The first is due so long from now."""
        self._path, self._clock = path, clock
        self._due_s = clock.elapsed_s() + SAVE_EVERY_S

    def save_if_due(self, saved: Saved) -> None:
        """Save, where it is time to, or at once where a user was let go of."""
        began_s = self._clock.elapsed_s()
        if saved.forgot or began_s >= self._due_s:
            save(saved, self._path)
            saved.forgot = False
            now_s = self._clock.elapsed_s()
            self._due_s = now_s + max(SAVE_EVERY_S, 9 * (now_s - began_s))


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
        "changes": state.rules.experiment.changes,
        "recalls": [[*key, count] for key, count in state.recalls.items()],
        "counts": state.counts,
        "closed_ms": state.closed_ms,
        "read_ms": state.newest_ms,
        "offsets": saved.offsets,
        "newest_ms": saved.newest_ms,
        "anonymous": state.anonymous,
        "forgotten": [
            state.forgotten.salt.hex(),
            [[name.hex(), *mark] for name, mark in state.forgotten.entries()],
        ],
        "requests": {
            request_id: [request.shown, [[*response, offset] for response, offset in request.responses.items()]]
            for request_id, request in state.requests.items()
        },
    }
    buffer = io.BytesIO()
    np.savez(
        buffer,
        header=np.frombuffer(json.dumps(header).encode(), np.uint8),
        arms=_table([(i, arms.index(arm)) for i, user in users for arm in sorted(user.arms)], 2),
        pre=_table([(i, *user.pre) for i, user in users], 1 + SUMS),
        days=_table([(i, day, *sums) for i, user in users for day, sums in user.days.items()], 2 + SUMS),
        sources=_table([(i, place[name], *sums) for i, user in users for name, sums in user.sources.items()], 2 + SUMS),
        ages=_table([(i, age, *sums) for i, user in users for age, sums in user.ages.items()], 2 + SUMS),
        versions=_table(
            [(i, version[name], *sums) for i, user in users for name, sums in user.versions.items()], 2 + SUMS
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
        return Saved(CollectorState(rules))
    try:
        tables = arrays.unzip(path.read_bytes())
        header = json.loads(tables["header"].tobytes())
        if header["format"] not in (BEFORE_SERVED, FORMAT):
            raise StateError(f"{path} has format {header['format']}; this build reads {BEFORE_SERVED} and {FORMAT}.")
        if not _fits(header["rules"], rules):
            raise StateError(
                f"{path} was written for another experiment or other settings (arms, weights, salt, period, windows); "
                "read it with those. To collect anew, move it away."
            )
        return _saved(tables, header, rules)
    except DAMAGED as error:
        raise StateError(f"{path} is damaged: {' '.join(str(error).split())}.") from error


def _saved(tables: Mapping[str, npt.NDArray[np.int64]], header: Mapping[str, Any], rules: Rules) -> Saved:
    state = CollectorState(
        rules.after([Change(*change) for change in header.get("changes", ())]),
        requests={request_id: _request(*pair) for request_id, pair in header["requests"].items()},
        users=_users(tables, list(rules.experiment.arms), header),
        arms={arm: _sums(sums) for arm, sums in header["arms"].items()},
        recalls=Counter({(arm, model, version): count for arm, model, version, count in header["recalls"]}),
        counts=Counter(header["counts"]),
        closed_ms=header["closed_ms"],
        plan=header.get("plan", {}),
        newest_ms=header["read_ms"],
        spans={(arm, version): (first, last) for arm, version, first, last in header["spans"]},
        forgotten=_marks(*header.get("forgotten", ("", ()))),
        anonymous=header.get("anonymous", False),
    )
    return Saved(state, header["offsets"], header["newest_ms"])


def _users(
    tables: Mapping[str, npt.NDArray[np.int64]], arms: list[str], header: Mapping[str, Any]
) -> dict[int, UserRecord]:
    sources, replicas = header["sources"], header["replicas"]
    versions = [(arm, version) for arm, version, *_ in header["spans"]]
    users = {user_id: UserRecord(pre=_sums(sums)) for user_id, *sums in tables["pre"].tolist()}
    for user_id, arm in tables["arms"].tolist():
        users[user_id].arms.add(arms[arm])
    for user_id, day, *sums in tables["days"].tolist():
        users[user_id].days[day] = _sums(sums)
    for user_id, source, *sums in tables["sources"].tolist():
        users[user_id].sources[sources[source]] = _sums(sums)
    for user_id, age, *sums in tables["ages"].tolist():
        users[user_id].ages[age] = _sums(sums)
    for user_id, version, *sums in tables["versions"].tolist():
        users[user_id].versions[versions[version]] = _sums(sums)
    for user_id, name in tables["replicas"].tolist():
        users[user_id].replicas.add(replicas[name])
    for user_id, start, end in tables["sessions"].tolist():
        users[user_id].sessions.append((start, end))
    return users


def _marks(salt: str, marks: Sequence[list[Any]]) -> Marks:
    return Marks(bytes.fromhex(salt), {bytes.fromhex(name): Mark(*mark) for name, *mark in marks})


def _sums(sums: list[int]) -> EventSums:
    """Sums as they lie in the file; one of `BEFORE_SERVED` lacks the last."""
    read = EventSums(*sums)
    return read if len(sums) == SUMS else read._replace(served=read.views)


def _request(exposure: list[Any] | None, responses: list[list[Any]]) -> OpenRequest:
    read = {_response(fields): offset for *fields, offset in responses}
    if exposure is None:
        return OpenRequest(None, read)
    record = ExposureRecord(*exposure)
    return OpenRequest(record._replace(items=tuple((item, source) for item, source in record.items)), read)


def _response(fields: list[Any]) -> Response:
    response = Response(*fields)
    return response._replace(shown_item_ids=tuple(response.shown_item_ids))


def _fingerprint(rules: Rules) -> list[Any]:
    return [rules.experiment.definition, *rules[1:4]]


def _fits(told: list[Any], rules: Rules) -> bool:
    """Whether the rules that a file was written by are these."""
    definition, *windows = told
    return rules.experiment.is_defined_by(definition) and windows == list(rules[1:4])


def _table(rows: list[tuple[int, ...]], width: int) -> npt.NDArray[np.int64]:
    return np.array(rows, np.int64).reshape(-1, width)
