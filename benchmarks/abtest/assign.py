"""How users are assigned: how many a second, how evenly, how independently, and whether a ramp moves any. JSON.

    python -m benchmarks.abtest.assign [--users 500000] [--repeats 5] [--salts 100]

Speed is that of one core, one user at a time and many at a time. `plain` is an experiment with the whole layer, no
holdout and no ramp: one hash a user. `full` has them all, set so that most users need all four hashes. Seconds are of
processor time; the best repeat counts.

Evenness: a χ² test over `BUCKETS` buckets for each of `--salts` salts, and of layers' independence for as many pairs
of layers (`SIDE` by `SIDE` classes). Where all is as it should be, the p-values of many tests are uniform: that is what
Kolmogorov and Smirnov's test is asked, and `least_p` is the smallest of them times their number (Bonferroni).
"""

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2_contingency, chisquare, kstest

from abtest.assignment.assign import assign, assign_many, buckets
from contracts.config.experiment import Arm, Experiment, Holdout, RampStep

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


BUCKETS, SIDE = 1000, 20
RAMP = (0.01, 0.05, 0.2, 0.5)
RAMPED = PLAIN.model_copy(update={"ramp": tuple(RampStep(from_ms=i, share=share) for i, share in enumerate(RAMP))})


def evenness(user_ids: npt.NDArray[np.int64], salts: int) -> dict[str, float]:
    """Whether the places under each salt fill `BUCKETS` buckets evenly."""
    p_values = []
    for salt in range(salts):
        counts = np.bincount((buckets(f"salt-{salt}", user_ids) * BUCKETS).astype(int), minlength=BUCKETS)
        p_values.append(float(chisquare(counts).pvalue))
    return _uniform(p_values)


def independence(user_ids: npt.NDArray[np.int64], pairs: int) -> dict[str, float]:
    """Whether the places in one layer say nothing about those in another."""
    p_values = []
    for pair in range(pairs):
        one, other = ((buckets(f"layer:{name}-{pair}", user_ids) * SIDE).astype(int) for name in ("recall", "ranking"))
        counts = np.bincount(SIDE * one + other, minlength=SIDE**2).reshape(SIDE, SIDE)
        p_values.append(float(chi2_contingency(counts).pvalue))
    return _uniform(p_values)


def ramped(user_ids: npt.NDArray[np.int64]) -> dict[str, float]:
    """Users in at each step of a ramp from 1 to 50 %, and how many of those in an arm changed it or left."""
    steps = [assign_many(RAMPED.model_copy(update={"end_ms": len(RAMP)}), user_ids, i) for i in range(len(RAMP))]
    moved = sum(int(((before >= 0) & (before != after)).sum()) for before, after in pairwise(steps))
    return {
        "moved": moved,
        **{f"share_at_{share:g}": float((arms >= 0).mean()) for share, arms in zip(RAMP, steps, strict=True)},
    }


def _uniform(p_values: list[float]) -> dict[str, float]:
    least = min(1.0, min(p_values) * len(p_values))
    return {"tests": len(p_values), "uniform_p": float(kstest(p_values, "uniform").pvalue), "least_p": least}


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
    parser.add_argument("--salts", type=int, default=100)
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
        "assignment_buckets": evenness(user_ids, asked.salts),
        "assignment_layers": independence(user_ids, asked.salts),
        "ramp": ramped(user_ids),
    }
    print(json.dumps(figures, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
