"""Trials: a new snapshot answers a share of its model's requests first, and what users do decides whether all get it.

Judging a snapshot by examples has no fair side: what could be watched, the snapshot that was live chose. Requests that
are drawn by a hash differ in nothing but the snapshot, so effective views per item shown (EVR) are compared, with users
as units: one who has been answered from both is compared with himself. Of requests that were served only, it is items
served: both sides serve alike, and exposures alone are read here.

A trial is looked at as it goes, and once when it ends.
- Harm, at any look: an interval that holds however often one looks (`abtest.stats.confidence_sequence`) is below 0. The
  snapshot is rolled back.
- The end: when `items` were shown on both sides, or the next snapshot falls due after `least_items`. It goes live
  unless its EVR is lower with confidence 1 - `alpha` (one-sided, normal; its looks are a matter of `early_alpha`).
- Time: `patience_ms` of event time after its first answer it ends so, too, for want of people who could say more.
A snapshot that falls due before `least_items` takes the place on trial, and what was learned of the line counts on. A
user who was shown more than `HEAVIEST` times the median counts as if it were that. What no replica answers from does
not go live.

Where nobody is answered (a warm-up, a backfill), there is nobody to ask and nobody to harm: snapshots go live at once.

After a roll-back every new snapshot has a trial of its own, on other requests. `patience_ms` after the first of them
the next one goes live without a trial: a learner whose every snapshot does worse for so long has a new normal, and
people have been told (`trainer_gate_open`, `driftline snapshots list`).
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from abtest.stats.confidence_sequence import always_valid
from abtest.stats.estimates import covariance, ratio_estimate
from abtest.stats.moments import Moments
from contracts.config.settings import CanarySettings, GateSettings
from contracts.runtime.clock import HOUR_MS
from contracts.snapshots.canary import Canary
from contracts.wire.events_pb2 import Example, Exposure

MIN_USERS = 30  # on each side; the estimate of fewer is not yet normally distributed
HEAVIEST = 10  # a user weighs at most so many times as much as the median one: nobody decides a trial alone
COLUMNS = ("live_items", "live_views", "tried_items", "tried_views")

Sums = npt.NDArray[np.float64]


def bounded(sums: Sums) -> Sums:
    """The same (U, 4) with users who were shown more than `HEAVIEST` times the median scaled down to that, by side.

    A user's own rate stays what it is. How many items a page has is the service's to say, so the bound is relative.

    >>> bounded(np.array([[4.0, 1, 8, 2], [4, 2, 8, 2], [400, 100, 0, 0]])).tolist()
    [[4.0, 1.0, 8.0, 2.0], [4.0, 2.0, 8.0, 2.0], [40.0, 10.0, 0.0, 0.0]]
    """
    out = sums.copy()
    for items in (0, 2):
        shown = sums[:, items]
        if shown.any():
            limit = HEAVIEST * np.median(shown[shown > 0])
            out[:, items : items + 2] *= np.minimum(1.0, limit / np.maximum(shown, 1.0))[:, None]
    return out


class Finding(NamedTuple):
    """EVR of what is on trial less EVR of what is live."""

    users: int
    items: int  # shown on both sides
    live: float  # EVR beside the trial
    difference: float
    std_error: float

    def __str__(self) -> str:
        return (
            f"EVR {self.live + self.difference:.4f} beside {self.live:.4f}: {self.difference:+.4f} "
            f"± {self.std_error:.4f} over {self.users:,} users"
        )


def compare(sums: Sums) -> Finding | None:
    """What users did on both sides; None where they are too few to say.

    The variance of the difference of two ratio estimates of one sample of users is the delta method's.

    Args:
        sums: (U, 4) of each user the `COLUMNS`: items shown and effective views, beside the trial and on it.

    >>> sums = np.array([[8, n % 5, 8, n % 4] for n in range(200)], np.float64)
    >>> print(compare(sums))
    EVR 0.1875 beside 0.2500: -0.0625 ± 0.0160 over 200 users

    """
    if min((sums[:, 0] > 0).sum(), (sums[:, 2] > 0).sum()) < MIN_USERS:
        return None
    moments = Moments.of(COLUMNS, sums)
    theirs, ours = (
        ratio_estimate(moments, "live_views", "live_items"),
        ratio_estimate(moments, "tried_views", "tried_items"),
    )
    if ours.value is None or theirs.value is None:
        return None
    variance = (
        covariance(moments, ours, ours) + covariance(moments, theirs, theirs) - 2 * covariance(moments, ours, theirs)
    )
    items = int(sums[:, 0].sum() + sums[:, 2].sum())
    return Finding(len(sums), items, theirs.value, ours.value - theirs.value, float(np.sqrt(max(variance, 0.0))))


def harms(finding: Finding, settings: CanarySettings, *, at_the_end: bool) -> bool:
    """Whether what was found is held against a snapshot, at one of many looks or at the end.

    >>> finding = Finding(users=200, items=3200, live=0.25, difference=-0.0625, std_error=0.025)
    >>> harms(finding, CanarySettings(), at_the_end=True), harms(finding, CanarySettings(), at_the_end=False)
    (True, False)
    """
    if not finding.std_error:
        return finding.difference < 0  # all users did the same
    if at_the_end:
        return finding.difference < float(stats.norm.ppf(settings.alpha)) * finding.std_error
    alpha, tuned_at = 2 * settings.early_alpha, 2 * settings.least_items  # two-sided, at items of both sides
    interval = always_valid(finding.difference, finding.std_error, finding.items, alpha, tuned_at)
    return interval.high is not None and interval.high < 0


class Outcome(NamedTuple):
    """How a trial has ended."""

    promoted: bool
    reason: str
    bases: tuple[str, ...]  # full snapshots that were on trial, the newest last


@dataclass
class _Trial:
    group: str  # the first version on trial, which says which requests it answers
    bases: set[str]  # full snapshots that have been on trial, this one in the place of that
    began_ms: int | None = None  # when it first answered; a log that is read again tells of answers by others alone
    admitted_ms: int = 0
    requests: dict[str, tuple[int, bool]] = field(default_factory=dict)  # that count: whose; whether it is on trial
    sums: dict[int, list[int]] = field(default_factory=dict)  # by user, as in COLUMNS

    def table(self) -> Sums:
        """(U, 4) as `compare` takes it."""
        return bounded(np.array([*self.sums.values()], np.float64).reshape(-1, len(COLUMNS)))


class Trials:
    """One model's trials, one at a time."""

    def __init__(self, model: str, settings: GateSettings, *, live: bool) -> None:
        """`live`: whether a snapshot of the model is live."""
        self._model = model
        self._live = live
        self._settings = settings
        self._trial: _Trial | None = None
        self._answered = 0  # requests since a snapshot was last made
        self._now_ms = 0  # event time
        self._ignored = False  # whether no replica answered from what was on trial last
        self._held_from_ms: int | None = None  # when the first of the snapshots was rolled back that have been since

    @property
    def running(self) -> bool:
        """Whether something is on trial."""
        return self._trial is not None

    @property
    def held(self) -> bool:
        """Whether the newest trial ended badly."""
        return self._held_from_ms is not None or self._ignored

    def show(self, exposure: Exposure) -> None:
        """Take an exposure that the model answered; the second of one request does not count."""
        self._answered += 1
        self._now_ms = max(self._now_ms, exposure.time_ms)
        trial = self._trial
        if trial is None or exposure.request_id in trial.requests:
            return
        tried = exposure.snapshot_version.partition("+")[0] in trial.bases
        if tried and trial.began_ms is None:
            trial.began_ms = exposure.time_ms
        if trial.began_ms is None:
            return  # both sides are counted over the same time
        trial.sums.setdefault(exposure.user_id, [0, 0, 0, 0])[2 * tried] += len(exposure.items)
        trial.requests[exposure.request_id] = exposure.user_id, tried

    def view(self, example: Example) -> None:
        """Take an effective view; one of a request that does not count, or that was another user's, does not either."""
        user_id, tried = self._trial.requests.get(example.request_id, (0, False)) if self._trial else (0, False)
        if self._trial and user_id == example.user_id:
            self._trial.sums[user_id][2 * tried + 1] += 1

    def forget(self, user_id: int) -> None:
        """Let go of what a user was shown and viewed."""
        trial = self._trial
        if trial is not None and trial.sums.pop(user_id, None) is not None:
            trial.requests = {name: entry for name, entry in trial.requests.items() if entry[0] != user_id}

    def admit(self, version: str) -> tuple[Canary | None, str]:
        """A snapshot without a flaw is there: whether it goes on trial, None: it goes live; and why."""
        answered, self._answered = self._answered, 0
        if self._trial is not None:
            self._trial.bases.add(version)
            return self._canary(version), f"on trial in the place of the one before, since {self._trial.group}"
        if not self._live:
            self._live = True
            return None, "it is the first"
        if not answered:
            return None, "nobody was answered since the last one"
        patience_ms = self._settings.patience_ms
        if self._held_from_ms is not None and self._now_ms - self._held_from_ms >= patience_ms:
            self._held_from_ms = None
            return None, f"snapshots were rolled back for {patience_ms / HOUR_MS:g} h: this is the new normal"
        self._trial = _Trial(version, {version}, admitted_ms=self._now_ms)
        return self._canary(version), f"on trial with {self._settings.canary.share:.0%} of requests"

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

    def outcome(self, *, next_is_due: bool = False) -> Outcome | None:
        """Whether the trial has ended, and how; then it is over."""
        trial, settings = self._trial, self._settings.canary
        if trial is None:
            return None
        if trial.began_ms is None:
            return self._unanswered(trial)
        sums = trial.table()
        finding = compare(sums)
        shown = int(min(sums[:, 0].sum(), sums[:, 2].sum()))
        # Where these were few users the end comes without a finding, and says so.
        ends = shown >= (settings.least_items if next_is_due else settings.items)
        ends = ends or self._now_ms - trial.began_ms >= self._settings.patience_ms
        harm = finding is not None and (
            harms(finding, settings, at_the_end=False) or (ends and harms(finding, settings, at_the_end=True))
        )
        if not (ends or harm):
            return None
        self._trial = None
        self._ignored = False
        if not harm:
            self._held_from_ms = None
        elif self._held_from_ms is None:
            self._held_from_ms = self._now_ms
        reason = f"{'users view less of what it shows' if harm else 'no harm'}: {finding or 'too few users'}"
        return Outcome(not harm, reason, tuple(sorted(trial.bases)))

    def _unanswered(self, trial: _Trial) -> Outcome | None:
        """Replicas that answer from what is live alone cannot load what is on trial, or have not heard of it.

        It does not go live, and neither does the next: nobody has seen what they are worth.
        """
        if self._now_ms - trial.admitted_ms < self._settings.patience_ms:
            return None
        self._trial, self._ignored = None, True
        reason = f"no replica has answered from it for {self._settings.patience_ms / HOUR_MS:g} h"
        return Outcome(False, reason, tuple(sorted(trial.bases)))

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
                "admitted_ms": trial.admitted_ms,
                "requests": dict(trial.requests),
                "sums": {user: list(sums) for user, sums in trial.sums.items()},
            },
            "live": self._live,
            "answered": self._answered,
            "now_ms": self._now_ms,
            "held_from_ms": self._held_from_ms,
            "ignored": self._ignored,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        trial = state["trial"]
        self._trial = trial and _Trial(
            trial["group"],
            set(trial["bases"]),
            trial["began_ms"],
            trial["admitted_ms"],
            {request: (user, tried) for request, (user, tried) in trial["requests"].items()},
            {user: list(sums) for user, sums in trial["sums"].items()},
        )
        self._live = state["live"]
        self._answered, self._now_ms = state["answered"], state["now_ms"]
        self._held_from_ms, self._ignored = state["held_from_ms"], state["ignored"]

    def _canary(self, version: str) -> Canary:
        return Canary(version, self._settings.canary.share, self._trial.group if self._trial else version)
