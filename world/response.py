"""What the users of a log would do with items that they were not shown: a model fitted on the warm-up week only.

Its probability of an effective view comes from gradient-boosted trees over the features of `world.features`, play time
given that is drawn from observed play times, follows come at their observed rates.

What it is not: the truth. The log holds only what the platform's own policy chose to show (KuaiRand's randomly exposed
items are not in it), so what another policy's items would have earned is extrapolated, and everything made of it is
labelled simulated. Within one page the user's state is that at the request: items of one page don't act on each other.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from contracts.features import Floats, Ints
from contracts.runtime.clock import DAY_MS
from world.base import Bools, CalibrationBin, Doubles, ResponseQuality, WorldError
from world.features import COLUMNS, Moment, Profiles, Statistics, matrix, moments, statistics
from world.logs import Observations
from world.plays import PlayTimes

_FOLDS = 5  # where all impressions are of one day
_FEWEST = 40
_BINS = 10


@dataclass(frozen=True)
class ResponseModel:
    """A fitted model. Users and items are rows of `profiles`; `day_offset_ms` makes local time of event time."""

    trees: HistGradientBoostingClassifier
    known: Statistics
    profiles: Profiles
    plays: PlayTimes
    follow_rates: Doubles  # (2,) after a view that was not effective, and after one that was
    repeat_factor: float  # what having seen the item before does to the probability
    day_offset_ms: int

    @classmethod
    def fit(cls, seen: Observations, profiles: Profiles, day_offset_ms: int) -> "ResponseModel":
        """Fit on impressions.

        Raises:
            WorldError: there are too few of them.

        """
        if min(seen.effective.sum(), (~seen.effective).sum()) < _FEWEST:
            raise WorldError(
                f"The warm-up has {seen.effective.size} usable rows with {int(seen.effective.sum())} effective views; "
                f"the response model needs {_FEWEST} rows with one and {_FEWEST} without."
            )
        with _threads().limit(limits=1):
            return cls._fit(seen, profiles, day_offset_ms)

    @classmethod
    def _fit(cls, seen: Observations, profiles: Profiles, day_offset_ms: int) -> "ResponseModel":
        described = _out_of_fold(seen, profiles, day_offset_ms)
        described[:, np.isnan(described).all(axis=0)] = 0  # the trees refuse a column without any value
        trees = HistGradientBoostingClassifier(
            max_iter=150,
            learning_rate=0.06,
            max_leaf_nodes=15,
            min_samples_leaf=60,
            l2_regularization=5.0,
            monotonic_cst=list(COLUMNS.values()),
            early_stopping=False,
            random_state=0,
        ).fit(described, seen.effective)
        fitted = trees.predict_proba(described)[:, 1]
        again = _repeats(seen)
        follows = [_follow_rate(seen, seen.effective == kind) for kind in (False, True)]
        return cls(
            trees,
            statistics(seen, profiles),
            profiles,
            PlayTimes.fit(profiles.durations_ms[seen.items], seen.plays_ms, seen.effective),
            np.array(follows),
            float(min((seen.effective[again].sum() + 5) / (fitted[again].sum() + 5), 1.0)),
            day_offset_ms,
        )

    def probabilities(
        self, users: Ints, items: Ints, times_ms: Ints, tabs: Ints, moment: Moment, again: Bools
    ) -> Doubles:
        """Probability of an effective view of n impressions; `again` (n,): the user has been shown the item before."""
        if not items.size:
            return np.empty(0)
        described = self._describe(users, items, times_ms, tabs, moment)
        with _threads().limit(limits=1):
            probability: Doubles = self.trees.predict_proba(described)[:, 1]
        return np.where(again, probability * self.repeat_factor, probability)

    def _describe(self, users: Ints, items: Ints, times_ms: Ints, tabs: Ints, moment: Moment) -> Floats:
        return matrix(users, items, times_ms + self.day_offset_ms, tabs, moment, self.known, self.profiles)


def fit_and_measure(
    seen: Observations, profiles: Profiles, day_offset_ms: int
) -> tuple[ResponseModel, ResponseQuality]:
    """Measure a model fitted on all but the last day on that day, then fit the one to use on everything.

    Raises:
        WorldError: there are too few impressions.

    """
    days = (seen.times_ms + day_offset_ms) // DAY_MS
    held_out = days == days.max(initial=0)
    if held_out.all():  # one day only: its last fifth
        held_out = np.arange(days.size) >= days.size * 4 // 5
    earlier = ResponseModel.fit(seen.where(~held_out), profiles, day_offset_ms)
    return ResponseModel.fit(seen, profiles, day_offset_ms), measure(earlier, seen, held_out)


def measure(model: ResponseModel, seen: Observations, held_out: Bools) -> ResponseQuality:
    """Quality on the impressions that `held_out` (n,) selects; the others only tell where users stood before.

    Raises:
        WorldError: the held-out impressions are all of one kind.

    """
    now = moments(seen)
    test = seen.where(held_out)
    moment = Moment(now.recent[held_out], now.minutes[held_out])
    p = model.probabilities(test.users, test.items, test.times_ms, test.tabs, moment, _repeats(seen)[held_out])
    if test.effective.all() or not test.effective.any():
        raise WorldError("The last warm-up day has only effective views or none; the response model can't be checked.")
    bins = _calibration(p, test.effective)
    durations = model.profiles.durations_ms[test.items]
    error_s = np.abs(model.plays.median_ms(durations, p) - test.plays_ms) / 1000
    constant = np.median(seen.plays_ms[~held_out])
    return ResponseQuality(
        rows=test.effective.size,
        auc=float(roc_auc_score(test.effective, p)),
        log_loss=float(log_loss(test.effective, p)),
        predicted_rate=float(p.mean()),
        observed_rate=float(test.effective.mean()),
        calibration_error=float(sum(b.rows * abs(b.predicted - b.observed) for b in bins) / p.size),
        calibration=bins,
        play_mae_s=float(error_s.mean()),
        play_constant_mae_s=float(np.abs(test.plays_ms - constant).mean() / 1000),
        play_median_error_s=float(np.median(error_s)),
        play_predicted_s=float(model.plays.mean_ms(durations, p).mean() / 1000),
        play_observed_s=float(test.plays_ms.mean() / 1000),
    )


def _out_of_fold(seen: Observations, profiles: Profiles, day_offset_ms: int) -> Floats:
    """Describe impressions by the statistics of the other days: no response, nor its visit's, describes itself.

    What came before within the day is in the moment, as it is when the model is used.
    """
    days = (seen.times_ms + day_offset_ms) // DAY_MS
    folds = days if np.unique(days).size > 1 else np.arange(days.size) % _FOLDS
    now = moments(seen)
    described = np.empty((days.size, len(COLUMNS)), np.float32)
    for fold in np.unique(folds):
        mine = folds == fold
        part = seen.where(mine)
        moment = Moment(now.recent[mine], now.minutes[mine])
        stats = statistics(seen.where(~mine), profiles)
        described[mine] = matrix(
            part.users, part.items, part.times_ms + day_offset_ms, part.tabs, moment, stats, profiles
        )
    return described


def _repeats(seen: Observations) -> Bools:
    """Whether the user has been shown the item before, (n,); impressions are in time order."""
    pair = seen.users * (seen.items.max(initial=0) + 1) + seen.items
    again = np.ones(pair.size, bool)
    again[np.unique(pair, return_index=True)[1]] = False
    return again


def _follow_rate(seen: Observations, kind: Bools) -> float:
    """Share of follows among one kind of view, pulled towards the overall share as by 100 such views."""
    overall = seen.follows.mean()
    return float((seen.follows[kind].sum() + 100 * overall) / (kind.sum() + 100))


def _calibration(p: Doubles, effective: Bools) -> tuple[CalibrationBin, ...]:
    tenths = np.array_split(np.argsort(p, kind="stable"), _BINS)
    return tuple(
        CalibrationBin(rows.size, float(p[rows].mean()), float(effective[rows].mean())) for rows in tenths if rows.size
    )


@cache
def _threads() -> ThreadpoolController:
    """One thread is enough here, and threads that wait for each other are slow where other processes are at work."""
    return ThreadpoolController()
