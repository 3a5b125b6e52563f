"""How much memory a collector needs: `python -m benchmarks.abtest.collector --users 100000`.

Users come once a day for a week and see ten items, of which they watch two and like the first. Memory is what the
process has more than before the first event, once all requests are folded; saving and loading come on top.
"""

import argparse
import gc
import json
import resource
import tempfile
import time
from pathlib import Path

import psutil

from abtest.collect.rules import Rules
from abtest.collect.state import CollectorState, close, observe_exposure, observe_feedback
from abtest.collect.store import Saved, load, save
from contracts.config.settings import Arm, Experiment
from contracts.runtime.clock import DAY_MS, HOUR_MS, MINUTE_MS
from contracts.runtime.cycles import look_seldom
from contracts.wire.events_pb2 import ExposedItem, Exposure, Feedback

START_MS, DAYS, ITEMS, WATCHED = 10 * DAY_MS, 7, 10, 2
MIB = 1 << 20


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    users = parser.parse_args().users
    arms = {"control": Arm(weight=1, model="two_tower"), "treatment": Arm(weight=1, model="t2diff")}
    experiment = Experiment(
        name="e", salt="s", start_ms=START_MS, end_ms=START_MS + DAYS * DAY_MS, arms=arms, control="control"
    )
    rules = Rules(experiment, 30 * MINUTE_MS, 6 * HOUR_MS, HOUR_MS)
    look_seldom()
    state, began, before = CollectorState(rules), time.process_time(), memory()
    for day in range(DAYS):
        for user in range(1, users + 1):
            visit(state, user, START_MS + day * DAY_MS + user * DAY_MS // (users + 1), f"{day}-{user}")
            if user % 10_000 == 0:
                close(state, START_MS + day * DAY_MS + user * DAY_MS // (users + 1) - 7 * HOUR_MS)
    close(state, START_MS + (DAYS + 1) * DAY_MS)
    taken_s, held = time.process_time() - began, memory() - before
    with tempfile.TemporaryDirectory() as folder:
        path, began = Path(folder) / "abtest.npz", time.process_time()
        save(Saved(state), path)
        saved_s, size = time.process_time() - began, path.stat().st_size
        del state
        gc.collect()
        began = time.process_time()
        load(path, rules)
        loaded_s = time.process_time() - began
    found = {
        "users": users,
        "events": users * DAYS * (1 + WATCHED),
        "events_per_cpu_s": round(users * DAYS * (1 + WATCHED) / taken_s),
        "bytes_per_user": round(held / users),
        "mib_per_million_users": round(held / users * 1e6 / MIB),
        "file_bytes_per_user": round(size / users),
        "save_cpu_s_per_million_users": round(saved_s / users * 1e6, 1),
        "load_cpu_s_per_million_users": round(loaded_s / users * 1e6, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(found, indent=1))  # noqa: T201


def visit(state: CollectorState, user: int, time_ms: int, request: str) -> None:
    """One page, and what was watched of it."""
    arm, model = (("control", "two_tower"), ("treatment", "t2diff"))[user % 2]
    exposure = Exposure(
        schema_version=1,
        event_id=f"x{request}",
        request_id=request,
        user_id=user,
        time_ms=time_ms,
        experiment="e",
        arm=arm,
        model=model,
        snapshot_version=f"v{time_ms // (6 * HOUR_MS):06d}",
        items=[ExposedItem(item_id=item, source=model) for item in range(ITEMS)],
    )
    observe_exposure(state, exposure)
    for item in range(WATCHED):
        observe_feedback(
            state,
            Feedback(
                schema_version=1,
                event_id=f"f{request}{item}",
                request_id=request,
                user_id=user,
                item_id=item,
                time_ms=time_ms + 1000 * (item + 1),
                play_time_ms=900,
                effective_view=item == 0,
            ),
        )


def memory() -> int:
    """What the process has in memory, in bytes."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    main()
