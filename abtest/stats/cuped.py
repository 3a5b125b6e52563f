"""CUPED: less variance by what was known of users before the experiment, for any metric that has an influence.

With w the metric's influence and C (p, k) those of the covariates, over all arms together,

    θ = (C Σ Cᵀ)⁻¹ C Σ w        value' = value − θ · (the arm's covariates − those of all arms)
                                variance' = (w − Cᵀθ)ᵀ Σ (w − Cᵀθ) / n, with the arm's own w, C, Σ and n

For a mean and one covariate that is [D13] eq. 4 to 6; for ratios w is the delta method's linear form.

What is conditional: θ and the covariates of all arms together are taken as given. For the difference between two arms
the latter cancel, and the former costs a term of order 1/n ([D13], section 3.2; [L13] for several covariates and
unequal arms). A relative difference is that at the covariates of these very users: its interval leaves out the noise
that all arms' covariates have in both arms' values, θ · (all arms' − expected), and with it what that noise has in
common with the arms' own. Where there is no effect that is nothing. Where an effect is large and multiplies what users
do, the two would partly cancel, and the interval is wider than it need be: it covers more often than it says, not less
(figures: `python -m benchmarks.abtest.aa`). Covariates must not be touched by the treatment: they have to be from
before a user's first exposure.

Sources:
    [D13] Deng, Xu, Kohavi, Walker: Improving the Sensitivity of Online Controlled Experiments by Utilizing
        Pre-Experiment Data. WSDM 2013.
    [L13] Lin: Agnostic notes on regression adjustments to experimental data. Annals of Applied Statistics 7(1), 2013,
        arXiv 1208.2301.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add

import numpy as np

from abtest.stats.estimates import Estimate, mean_estimate
from abtest.stats.metrics import Metric
from abtest.stats.moments import Floats, Moments

ALIKE = 1e-12  # a covariate whose standard deviation is this small against its mean has none but by rounding
SINGULAR = 1e-10  # of a covariate's variance, and of the correlations' singular values: what is below counts as 0
COUNTS = 1e-6  # a coefficient on the scale of correlations that is more than rounding
CONSTANT = "is the same for all users, or lacks a value in some arm"


@dataclass(frozen=True)
class Adjusted:
    """A metric after CUPED.

    `estimates`: by arm; an arm's plain estimate where there is nothing to adjust it by. `covariates`: those used, and
    `theta` (p,) their coefficients. `dropped`: covariates without variance, without a value in some arm, or that follow
    from others.
    `variance_removed`: 1 − the sum of the arms' adjusted variances over that of the plain ones, so the share that the
    variance of a difference of two arms loses; None where an arm has no variance. It may be below 0 by chance.
    """

    estimates: dict[str, Estimate]
    covariates: tuple[str, ...]
    theta: Floats
    dropped: tuple[str, ...]
    variance_removed: float | None


def adjust(moments: Mapping[str, Moments], metric: Metric, covariates: Sequence[str | Metric]) -> Adjusted:
    """`metric` in every arm, adjusted by the covariates.

    Args:
        moments: by arm, all of the same columns: the metric's and the covariates'.
        metric: what is to be adjusted.
        covariates: columns (their means), or metrics such as the pre-period's own ratio.

    Raises:
        ValueError: there are no arms, or they have different columns.
        KeyError: a column is not there.

    >>> users = np.array([[1.0, 1.0], [2.0, 2.0], [4.0, 3.0], [5.0, 4.0]])
    >>> arms = {"a": Moments.of(("x", "pre.x"), users), "b": Moments.of(("x", "pre.x"), users + 1)}
    >>> from abtest.stats.metrics import Mean
    >>> found = adjust(arms, Mean("x", "x", "", "", "x"), ["pre.x"])
    >>> [round(found.estimates[arm].value, 2) for arm in arms], round(found.variance_removed, 3)
    ([3.67, 3.33], 0.978)

    """
    return Adjustment.of(moments, covariates).of_metric(metric)


@dataclass(frozen=True)
class Adjustment:
    """All that CUPED needs and that is the same for every metric: of the arms' `moments`, and of the covariates.

    `used`: name, estimate over all arms and by arm of the covariates that vary, have a value everywhere, and do not
    follow from those before them. `dropped`: the others, each with the reason.
    """

    moments: Mapping[str, Moments]
    whole: Moments
    used: tuple[tuple[str, Estimate, dict[str, Estimate]], ...]
    dropped: Mapping[str, str]

    @classmethod
    def of(cls, moments: Mapping[str, Moments], covariates: Sequence[str | Metric]) -> "Adjustment":
        """Of `covariates` in arms.

        Raises:
            ValueError: there are no arms, or they have different columns.
            KeyError: a column is not there.

        """
        if not moments:
            raise ValueError("there are no arms to adjust")
        whole = reduce(add, moments.values())
        varying = tuple(_covariates(moments, whole, covariates))
        follows = _following(whole, varying)
        names = [name for name, _, _ in varying]
        reasons = {
            name: follows[name] if name in names else CONSTANT
            for name in map(_name, covariates)
            if name in follows or name not in names
        }
        return cls(moments, whole, tuple(each for each in varying if each[0] not in follows), reasons)

    def of_metric(self, metric: Metric) -> Adjusted:
        """One metric in every arm, adjusted."""
        plain = {arm: metric.estimate(moments) for arm, moments in self.moments.items()}
        pooled = metric.estimate(self.whole)
        used = tuple(name for name, _, _ in self.used)
        dropped = tuple(self.dropped)
        if not self.used or pooled.influence is None or pooled.variance is None:
            return Adjusted(plain, (), np.zeros(0), (*used, *dropped), _removed(plain, plain))
        inverse, with_all, means = self._joint
        theta = inverse @ (with_all @ pooled.influence)
        estimates = {
            arm: _adjusted(moments, plain[arm], *self._by_arm[arm], theta, means)
            for arm, moments in self.moments.items()
        }
        return Adjusted(estimates, used, theta, dropped, _removed(plain, estimates))

    @cached_property
    def _joint(self) -> tuple[Floats, Floats, Floats]:
        """(C Σ Cᵀ)⁺, C Σ and the covariates' values, over all arms."""
        C = np.stack([_influence(estimate) for _, estimate, _ in self.used])
        with_all = C @ self.whole.covariances
        return (
            _inverse(with_all @ C.T),
            with_all,
            np.array([estimate.value for _, estimate, _ in self.used], np.float64),
        )

    @cached_property
    def _by_arm(self) -> dict[str, tuple[Floats, Floats]]:
        """The covariates' influences (p, k) and values (p,) in each arm; NaN where an arm has none."""
        by_arm = {}
        for arm, moments in self.moments.items():
            estimates = [estimate_of[arm] for _, _, estimate_of in self.used]
            none = np.full(len(moments.columns), np.nan)
            C = np.stack([none if each.influence is None else each.influence for each in estimates])
            by_arm[arm] = C, np.array([np.nan if each.value is None else each.value for each in estimates])
        return by_arm


def _covariates(
    moments: Mapping[str, Moments], whole: Moments, covariates: Sequence[str | Metric]
) -> Iterator[tuple[str, Estimate, dict[str, Estimate]]]:
    """Name, estimate over all arms and estimates by arm of each covariate that varies and has a value everywhere."""
    for covariate in covariates:
        pooled = _estimate(whole, covariate)
        by_arm = {arm: _estimate(arm_moments, covariate) for arm, arm_moments in moments.items()}
        everywhere = all(by_arm[arm].value is not None for arm, arm_moments in moments.items() if arm_moments.n)
        if pooled.value is None or pooled.variance is None or not everywhere:
            continue
        if pooled.variance * pooled.users > (ALIKE * pooled.value) ** 2:
            yield _name(covariate), pooled, by_arm


def _following(whole: Moments, varying: Sequence[tuple[str, Estimate, dict[str, Estimate]]]) -> dict[str, str]:
    """Covariates that are a linear combination of those before them, and of which: they add nothing.

    What is left of one beside those kept before it is its residual variance on the scale of correlations.
    """
    if len(varying) < 2:
        return {}
    C = np.stack([_influence(estimate) for _, estimate, _ in varying])
    covariances = C @ whole.covariances @ C.T
    scale = 1 / np.sqrt(np.diag(covariances))
    correlations = covariances * np.outer(scale, scale)
    kept, follows = [0], {}
    for place in range(1, len(varying)):
        with_kept = correlations[kept, place]
        coefficients = np.linalg.solve(correlations[np.ix_(kept, kept)], with_kept)
        if 1 - with_kept @ coefficients > SINGULAR:
            kept.append(place)
            continue
        others = [varying[at][0] for at, weight in zip(kept, coefficients, strict=True) if abs(weight) > COUNTS]
        follows[varying[place][0]] = f"follows from {', '.join(others)}"
    return follows


def _inverse(covariances: Floats) -> Floats:
    """(C Σ Cᵀ)⁺ on the scale of correlations: of covariates that say the same, the shortest coefficients."""
    scale = 1 / np.sqrt(np.diag(covariances))
    scales = np.outer(scale, scale)
    inverse: Floats = scales * np.linalg.pinv(covariances * scales, rcond=SINGULAR, hermitian=True)
    return inverse


def _adjusted(moments: Moments, plain: Estimate, C: Floats, values: Floats, theta: Floats, means: Floats) -> Estimate:
    if plain.value is None or plain.influence is None:
        return plain
    influence = plain.influence - theta @ C
    value = plain.value - float(theta @ (values - means))
    if plain.variance is None:
        return Estimate(plain.users, value, None, plain.reason, influence)
    variance = float(influence @ moments.covariances @ influence) / moments.n
    return Estimate(plain.users, value, max(variance, 0.0), None, influence)


def _removed(plain: Mapping[str, Estimate], adjusted: Mapping[str, Estimate]) -> float | None:
    before = [estimate.variance for estimate in plain.values()]
    after = [estimate.variance for estimate in adjusted.values()]
    if any(variance is None for variance in (*before, *after)):
        return None
    whole = sum(variance for variance in before if variance is not None)
    return 1 - sum(variance for variance in after if variance is not None) / whole if whole else None


def _estimate(moments: Moments, covariate: str | Metric) -> Estimate:
    return mean_estimate(moments, covariate) if isinstance(covariate, str) else covariate.estimate(moments)


def _name(covariate: str | Metric) -> str:
    return covariate if isinstance(covariate, str) else covariate.name


def _influence(estimate: Estimate) -> Floats:
    if estimate.influence is None:
        raise ValueError("a covariate without a value has no influence")
    return estimate.influence
