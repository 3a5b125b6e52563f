"""Small experiments and events for the tests: literal values, no randomness unless asked for."""

import sqlite3
from itertools import count
from pathlib import Path

import pandas as pd

from abtest.collect.rules import Rules
from abtest.collect.state import CollectorState, observe_exposure, observe_feedback
from contracts.config.settings import Arm, Experiment
from contracts.runtime.clock import DAY_MS, HOUR_MS, MINUTE_MS
from contracts.wire.events_pb2 import ExposedItem, Exposure, Feedback

START = 10 * DAY_MS
_ids = count()


def experiment(days: int = 7, **changes) -> Experiment:
    arms = {"control": Arm(weight=1, model="two_tower"), "treatment": Arm(weight=1, model="t2diff")}
    given = {"name": "e", "salt": "s", "start_ms": START, "end_ms": START + days * DAY_MS, "arms": arms}
    return Experiment(**{**given, "control": "control", **changes})


def rules(**changes) -> Rules:
    return Rules(experiment(**changes), 30 * MINUTE_MS, 6 * HOUR_MS, HOUR_MS)


def exposure(user=1, arm="treatment", at=START, request="r", items=((1, "t2diff"), (2, "popular")), **changes):
    message = Exposure(
        schema_version=1,
        event_id=f"x{next(_ids)}",
        request_id=request,
        user_id=user,
        time_ms=at,
        experiment="e",
        arm=arm,
        model="t2diff" if arm == "treatment" else "two_tower",
        snapshot_version="v1",
        items=[ExposedItem(item_id=item, source=source) for item, source in items],
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def feedback(user=1, at=START, request="r", item=1, play_ms=1000, ev=True, follow=False, **changes):
    message = Feedback(
        schema_version=1,
        event_id=f"f{next(_ids)}",
        request_id=request,
        user_id=user,
        item_id=item,
        time_ms=at,
        play_time_ms=play_ms,
        effective_view=ev,
        follow=follow,
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def impression(items=(1, 2), user=1, at=START, request="r", **changes):
    message = Feedback(
        schema_version=1,
        event_id=f"i{next(_ids)}",
        request_id=request,
        user_id=user,
        time_ms=at,
        shown_item_ids=items,
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def observe(state: CollectorState, *events: Exposure | Feedback) -> CollectorState:
    for event in events:
        if isinstance(event, Exposure):
            observe_exposure(state, event)
        else:
            observe_feedback(state, event)
    return state


def week(users: int = 40, days: int = 3, weight: float = 0.5) -> list[Exposure | Feedback]:
    """A deterministic little week: treatment users watch a little more."""
    events: list[Exposure | Feedback] = []
    for user in range(1, users + 1):
        arm = "treatment" if user % 2 else "control"
        for day in range(days):
            if (user + day) % 3 == 0:
                continue
            at = START + day * DAY_MS + user * 7 * MINUTE_MS
            request = f"{user}-{day}"
            events.append(exposure(user, arm, at, request))
            for item in (1, 2):
                ev = (user * 7 + day * 3 + item) % 5 < (3 if arm == "treatment" else 2)
                follow = (user + item + day) % 11 == 0
                events.append(feedback(user, at + item * MINUTE_MS, request, item, 1000 * (user % 9 + 1), ev, follow))
    return events


def into_sqlite(path: Path, **frames: pd.DataFrame) -> None:
    """Tables of a new database. Not by `DataFrame.to_sql`: it changes how the whole process reads SQLite's times."""
    with sqlite3.connect(path) as connection:
        for name, frame in frames.items():
            columns = ", ".join(f'"{column}"' for column in frame.columns)
            connection.execute(f"CREATE TABLE {name} ({columns})")
            places = ", ".join("?" * len(frame.columns))
            insert = f"INSERT INTO {name} VALUES ({places})"  # noqa: S608 (names are the tests' own)
            connection.executemany(insert, frame.itertuples(index=False, name=None))
    connection.close()
