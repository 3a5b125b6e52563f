"""Trials: a new snapshot answers a share of its model's users first, and what they do decides whether all get it.

Judging a snapshot by examples has no fair side: what could be watched, the snapshot that was live chose. Users who are
drawn by a hash differ in nothing but the snapshot, so their effective views per item shown (EVR) are compared, with
users as units, by an interval that holds however often one looks (`abtest.stats.confidence_sequence`; it is asymptotic,
so fewer than `MIN_USERS` tell nothing).

A trial ends in one of three ways. Harm: the interval of EVR on trial less EVR of what is live is below -margin; the
snapshot is rolled back. No harm by the time that `items` were shown on both sides: it goes live. Time: after
`patience_ms` of event time it goes live too, for want of people who could say otherwise. A snapshot that falls due
while another is on trial takes its place with the same users, and what was learned of the line so far counts on.

Where nobody is answered (a warm-up, a backfill), there is nobody to ask and nobody to harm: snapshots go live at once.

After a roll-back every new snapshot has a trial of its own, with other users. `patience_ms` after the first of them the
next one goes live without a trial: a learner whose every snapshot does worse for so long has a new normal, and people
have been told (`trainer_gate_open`, `driftline snapshots list`).
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from abtest.stats.confidence_sequence import always_valid
from abtest.stats.estimates import ratio_estimate
from abtest.stats.moments import Moments
from contracts.config.settings import CanarySettings, GateSettings
from contracts.runtime.clock import HOUR_MS
from contracts.snapshots.canary import Canary, answers
from contracts.wire.events_pb2 import Example, Exposure

MIN_USERS = 30  # on each side; the estimate of fewer is not yet normally distributed

Sums = npt.NDArray[np.float64]


class Finding(NamedTuple):
    """EVR of users who have what is on trial less that of the others."""

    users: int  # on both sides
    items: int  # shown on both sides
    live: float  # EVR beside the trial
    difference: float
    low: float  # both bounds hold together, however often one looks
    high: float

    def __str__(self) -> str:
        return (
            f"EVR {self.live + self.difference:.4f} beside {self.live:.4f}: {self.difference:+.4f} "
            f"[{self.low:+.4f}, {self.high:+.4f}] over {self.users:,} users"
        )


def compare(trial: Sums, live: Sums, settings: CanarySettings) -> Finding | None:
    """What users did on both sides; None where they are too few to say, or all did the same.

    Args:
        trial: (U, 2) items shown and effective views of each user who has what is on trial.
        live: (V, 2) the same of the others.
        settings: alpha for one side; `items` says where the interval is to be narrowest.

    >>> users = np.stack([np.full(200, 10.0), np.arange(200) % 5.0], axis=1)
    >>> print(compare(users, users + [0.0, 1.0], CanarySettings()))
    EVR 0.2000 beside 0.3000: -0.1000 [-0.1430, -0.0570] over 400 users

    """
    if min(len(trial), len(live)) < MIN_USERS:
        return None
    columns = ("items", "views")
    ours, theirs = (ratio_estimate(Moments.of(columns, sums), "views", "items") for sums in (trial, live))
    if ours.value is None or theirs.value is None or ours.variance is None or theirs.variance is None:
        return None
    apart, items = ours.value - theirs.value, int(trial[:, 0].sum() + live[:, 0].sum())
    error = float(np.sqrt(ours.variance + theirs.variance))
    interval = always_valid(apart, error, items, 2 * settings.alpha, tuned_at=2 * settings.items)
    if interval.low is None or interval.high is None:
        return None
    return Finding(len(trial) + len(live), items, theirs.value, apart, interval.low, interval.high)


class Outcome(NamedTuple):
    """How a trial has ended."""

    promoted: bool
    reason: str
    bases: tuple[str, ...]  # full snapshots that were on trial, the newest last


@dataclass
class _Trial:
    group: str  # the first version on trial, which says whose trial it is
    bases: set[str]  # full snapshots that have been on trial, this one in the place of that
    began_ms: int | None = None  # when it first answered; a log that is read again tells of answers by others alone
    requests: dict[str, bool] = field(default_factory=dict)  # that count; whether what is on trial answered
    sums: dict[bool, dict[int, list[int]]] = field(default_factory=lambda: {True: {}, False: {}})  # [items, views]

    def table(self, side: bool) -> Sums:
        """(U, 2) items shown and effective views of its users."""
        return np.array([*self.sums[side].values()], np.float64).reshape(-1, 2)


class Trials:
    """One model's trials, one at a time."""

    def __init__(self, model: str, settings: GateSettings) -> None:
        self._model = model
        self._settings = settings
        self._trial: _Trial | None = None
        self._answered = 0  # requests since a snapshot was last made
        self._now_ms = 0  # event time
        self._held_from_ms: int | None = None  # when the first of the snapshots was rolled back that have been since

    @property
    def running(self) -> bool:
        """Whether something is on trial."""
        return self._trial is not None

    @property
    def held(self) -> bool:
        """Whether the newest trial ended badly."""
        return self._held_from_ms is not None

    def show(self, exposure: Exposure) -> None:
        """Take an exposure that the model answered; the second of one request does not count."""
        self._answered += 1
        self._now_ms = max(self._now_ms, exposure.time_ms)
        trial = self._trial
        if trial is None or exposure.request_id in trial.requests:
            return
        tried = exposure.snapshot_version.partition("+")[0] in trial.bases
        if tried != answers(self._model, self._canary(exposure.snapshot_version), exposure.user_id):
            return  # a replica that has not heard of the trial yet, or not of its end
        if tried and trial.began_ms is None:
            trial.began_ms = exposure.time_ms
        if trial.began_ms is None:
            return  # both sides are counted over the same time
        trial.requests[exposure.request_id] = tried
        trial.sums[tried].setdefault(exposure.user_id, [0, 0])[0] += len(exposure.items)

    def view(self, example: Example) -> None:
        """Take an effective view; one of a request that does not count does not either."""
        side = self._trial.requests.get(example.request_id) if self._trial else None
        if self._trial and side is not None:
            self._trial.sums[side][example.user_id][1] += 1

    def admit(self, version: str) -> tuple[Canary | None, str]:
        """A snapshot without a flaw is there: whether it goes on trial, None: it goes live; and why."""
        answered, self._answered = self._answered, 0
        if self._trial is not None:
            self._trial.bases.add(version)
            return self._canary(version), f"on trial in the place of the one before, since {self._trial.group}"
        if not answered:
            return None, "nobody was answered since the last one"
        if self._held_from_ms is not None and self._now_ms - self._held_from_ms >= self._settings.patience_ms:
            self._held_from_ms = None
            return (
                None,
                f"snapshots were rolled back for {self._settings.patience_ms / HOUR_MS:g} h: this is the new normal",
            )
        self._trial = _Trial(version, {version})
        return self._canary(version), f"on trial with {self._settings.canary.share:.0%} of users"

    def renamed(self, before: str, after: str) -> None:
        """What was admitted last lies on the disk under another version."""
        if self._trial is not None:
            self._trial.bases = self._trial.bases - {before} | {after}

    def on_trial(self, version: str) -> Canary | None:
        """The pointer to a version of the line that is on trial; None where none is."""
        return self._canary(version) if self._trial else None

    def cancel(self) -> None:
        """Nothing of the line is served: people decided so, or the disk."""
        self._trial = None

    def outcome(self) -> Outcome | None:
        """Whether the trial has ended, and how; then it is over."""
        trial, settings = self._trial, self._settings
        if trial is None or trial.began_ms is None:
            return None
        sides = trial.table(True), trial.table(False)
        finding = compare(*sides, settings.canary)
        shown = min(int(side[:, 0].sum()) for side in sides)
        lasted_ms = self._now_ms - trial.began_ms
        if finding is not None and finding.high < -settings.canary.margin * finding.live:
            promoted, reason = False, f"users view less of what it shows: {finding}"
        elif shown >= settings.canary.items:
            promoted, reason = True, f"no harm: {finding or 'nobody views anything'}"
        elif lasted_ms >= settings.patience_ms:
            promoted, reason = True, f"no harm after {lasted_ms / HOUR_MS:.0f} h: {finding or 'too few users'}"
        else:
            return None
        self._trial = None
        if promoted:
            self._held_from_ms = None
        elif self._held_from_ms is None:
            self._held_from_ms = self._now_ms
        return Outcome(promoted, reason, tuple(sorted(trial.bases)))

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        trial = self._trial
        return {
            "trial": None
            if trial is None
            else {
                "group": trial.group,
                "bases": sorted(trial.bases),
                "began_ms": trial.began_ms,
                "requests": dict(trial.requests),
                "sums": {side: [[user, *sums] for user, sums in users.items()] for side, users in trial.sums.items()},
            },
            "answered": self._answered,
            "now_ms": self._now_ms,
            "held_from_ms": self._held_from_ms,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        trial = state["trial"]
        self._trial = trial and _Trial(
            trial["group"],
            set(trial["bases"]),
            trial["began_ms"],
            dict(trial["requests"]),
            {side: {user: [items, views] for user, items, views in users} for side, users in trial["sums"].items()},
        )
        self._answered, self._now_ms = state["answered"], state["now_ms"]
        self._held_from_ms = state["held_from_ms"]

    def _canary(self, version: str) -> Canary:
        return Canary(version, self._settings.canary.share, self._trial.group if self._trial else version)
