"""How many users one core assigns in a second, one by one and many at a time, as JSON.

    python -m benchmarks.abtest_assign [--users 500000] [--repeats 5]

`plain` is an experiment with the whole layer, no holdout and no ramp: one hash a user. `full` has them all, set so that
most users need all four hashes. Seconds are of processor time; the best repeat counts.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from abtest.assignment import assign, assign_many
from contracts.experiment import Arm, Experiment, Holdout, RampStep

ARMS = {"control": Arm(weight=1, model="two_tower"), "treatment": Arm(weight=1, model="t2diff")}
PLAIN = Experiment(name="plain", salt="t2diff-against-two-tower-0", start_ms=0, end_ms=2, arms=ARMS, control="control")
FULL = PLAIN.model_copy(
    update={
        "name": "full",
        "slots": (0.0, 0.95),
        "holdout": Holdout(salt="2026", share=0.05),
        "ramp": (RampStep(from_ms=0, share=0.95),),
    }
)


def per_s(work: Callable[[], object], count: int, repeats: int) -> float:
    """How many of `count` pieces of work are done in a second, at best."""
    times = []
    for _ in range(repeats):
        began_s = time.process_time()
        work()
        times.append(time.process_time() - began_s)
    return round(count / min(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    user_ids = np.random.default_rng(asked.seed).integers(1, 10**9, asked.users)
    listed = user_ids.tolist()

    def one_by_one(experiment: Experiment) -> Callable[[], object]:
        return lambda: [assign(experiment, user_id, 1) for user_id in listed]

    def together(experiment: Experiment) -> Callable[[], object]:
        return lambda: assign_many(experiment, user_ids, 1)

    figures = {
        "assigns_per_s_one": per_s(one_by_one(PLAIN), asked.users, asked.repeats),
        "assigns_per_s_many": per_s(together(PLAIN), asked.users, asked.repeats),
        "assigns_per_s_one_full": per_s(one_by_one(FULL), asked.users, asked.repeats),
        "assigns_per_s_many_full": per_s(together(FULL), asked.users, asked.repeats),
        "users": asked.users,
    }
    print(json.dumps(figures, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
