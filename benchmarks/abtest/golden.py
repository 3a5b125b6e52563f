"""The statistics beside libraries that others wrote: how far apart the two are, number by number.

    python -m benchmarks.abtest.golden [--data FOLDER]

Prints one JSON object. Oracles: statsmodels (two-sample z and Welch tests, clustered least squares and Poisson
regressions on event rows, regression adjustment), mpmath (forty digits, from the users' rows), and tea-tasting where it
is installed. With the folder of public data sets, what was published of two real experiments as well
(`benchmarks.abtest.published`).
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np
import pandas as pd
import statsmodels.api as sm
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from abtest.stats.cuped import adjust
from abtest.stats.effects import Effect, compare, two_sided
from abtest.stats.metrics import Mean, Metric, Ratio
from abtest.stats.moments import Floats, Moments
from benchmarks.abtest.published import published
from benchmarks.options import folder

COLUMNS = ("views", "ev", "play", "pre.views", "pre.ev", "pre.play")
ARMS = ("treatment", "control")
PLAY, EVR = Mean("play", "", "", "", "play"), Ratio("evr", "", "", "", "ev", "views")
PRE_EVR = Ratio("pre.evr", "", "", "", "pre.ev", "pre.views")
LEVELS = (0.05, 0.01)
DIGITS = 40


class Pair(NamedTuple):
    """One number, ours and an oracle's."""

    what: str
    ours: float
    oracle: float

    @property
    def error(self) -> float:
        """Relative to the oracle's."""
        return float(abs(self.ours / self.oracle - 1))


def users(seed: int = 3) -> dict[str, Floats]:
    """Users (n, 6) of both arms, heavy-tailed and of unequal numbers; the treatment does something."""
    random = np.random.default_rng(seed)
    arms = {}
    for arm, n, lift in (("treatment", 900, 1.2), ("control", 700, 1.0)):
        activity, taste = random.gamma(2.0, 1.0, n), random.beta(2, 4, n)
        views, before = 1 + random.poisson(9 * activity), 1 + random.poisson(9 * activity)
        ev, pre_ev = random.binomial(views, np.minimum(1, lift * taste)), random.binomial(before, taste)
        play = lift * views * random.lognormal(2, 0.8, n)
        arms[arm] = np.stack([views, ev, play, before, pre_ev, before * random.lognormal(2, 0.8, n)], axis=1)
    return arms


def golden_max_relative_error() -> float:
    """The largest relative error of all pairs."""
    return max(pair.error for pair in pairs())


def oracles() -> dict[str, str | None]:
    """The oracles and their versions; None for one that is not installed."""
    versions: dict[str, str | None] = {}
    for name in ("statsmodels", "mpmath", "tea-tasting"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def pairs() -> Iterator[Pair]:
    """Every number that is compared."""
    arms = users()
    yield from means(arms)
    yield from ratios(arms)
    yield from cuped(arms)
    yield from exact(arms)
    yield from tails()
    if oracles()["tea-tasting"]:
        yield from tea_tasting(arms)


def means(arms: dict[str, Floats]) -> Iterator[Pair]:
    """A mean per user: statsmodels' two-sample z-test and Welch's t-test."""
    t, c = (DescrStatsW(arms[arm][:, COLUMNS.index("play")]) for arm in ARMS)
    yield from _two_sample("mean", {a: _moments(v) for a, v in arms.items()}, PLAY, (), CompareMeans(t, c))


def ratios(arms: dict[str, Floats]) -> Iterator[Pair]:
    """A ratio: least squares and Poisson regression on event rows, clustered on the user.

    The oracle divides by n where we divide by n − 1, so its variances are brought to ours.
    """
    plain, logs = {}, {}
    for arm, values in arms.items():
        views, ev = values[:, 0].astype(int), values[:, 1].astype(int)
        rows = np.concatenate([np.repeat([1.0, 0.0], [e, v - e]) for v, e in zip(views, ev, strict=True)])
        cluster = {"groups": np.repeat(np.arange(len(views)), views), "use_correction": False}
        small = len(views) / (len(views) - 1)
        ones = np.ones(len(rows))
        linear = sm.OLS(rows, ones).fit(cov_type="cluster", cov_kwds=cluster)
        poisson = sm.GLM(rows, ones, family=sm.families.Poisson()).fit(tol=1e-15, cov_type="cluster", cov_kwds=cluster)
        plain[arm] = linear.params[0], linear.cov_params()[0, 0] * small
        logs[arm] = poisson.params[0], poisson.cov_params()[0, 0] * small
    for alpha in LEVELS:
        q = -float(mp.sqrt(2) * mp.erfinv(alpha - 1))
        ours = _effect(arms, EVR, (), alpha)
        difference = plain["treatment"][0] - plain["control"][0]
        error = math.sqrt(plain["treatment"][1] + plain["control"][1])
        log_ratio = logs["treatment"][0] - logs["control"][0]
        log_error = math.sqrt(logs["treatment"][1] + logs["control"][1])
        yield from _pairs(
            f"ratio at {alpha}",
            ours,
            difference=difference,
            difference_std_error=error,
            difference_low=difference - q * error,
            difference_high=difference + q * error,
            difference_p_value=float(mp.erfc(abs(difference) / error / mp.sqrt(2))),
            relative=math.expm1(log_ratio),
            ci_low=math.expm1(log_ratio - q * log_error),
            ci_high=math.expm1(log_ratio + q * log_error),
            p_value=float(mp.erfc(abs(log_ratio) / log_error / mp.sqrt(2))),
        )


def cuped(arms: dict[str, Floats]) -> Iterator[Pair]:
    """Regression adjustment by statsmodels, of means and of linearised ratios, then its two-sample tests.

    A ratio's user value is R + (y − R x)/x̄: its mean is R and its variance the delta method's. The coefficients come
    from all users at once, the values that they adjust from the arm's own R and x̄.
    """
    moments = {arm: _moments(values) for arm, values in arms.items()}
    both = np.concatenate(list(arms.values()))
    for name, metric, covariates in (
        ("cuped mean", PLAY, ("pre.play",)),
        ("cuped mean by three", PLAY, ("pre.play", "pre.views", "pre.ev")),
        ("cuped ratio", EVR, (PRE_EVR,)),
        ("cuped ratio by three", EVR, (PRE_EVR, "pre.views", "pre.play")),
    ):
        X = np.stack([_linearised(both, covariate) for covariate in covariates], axis=1)
        theta = sm.OLS(_linearised(both, metric), sm.add_constant(X)).fit().params[1:]
        adjusted = {}
        for arm, values in arms.items():
            C = np.stack([_linearised(values, covariate) for covariate in covariates], axis=1)
            adjusted[arm] = DescrStatsW(_linearised(values, metric) - (C - X.mean(axis=0)) @ theta)
        oracle = CompareMeans(adjusted["treatment"], adjusted["control"])
        yield from _two_sample(name, moments, metric, covariates, oracle)


def exact(arms: dict[str, Floats]) -> Iterator[Pair]:
    """Relative intervals from the rows at forty digits: log-delta, and Fieller's quadratic by its plain formula."""
    with mp.workdps(DIGITS):
        estimates = []
        for arm in ARMS:
            rows = [mp.mpf(float(x)) for x in arms[arm][:, COLUMNS.index("play")]]
            mean = mp.fsum(rows) / len(rows)
            estimates.append((mean, mp.fsum((x - mean) ** 2 for x in rows) / (len(rows) - 1) / len(rows)))
        (t, v_t), (c, v_c) = estimates
        for alpha in LEVELS:
            q = mp.sqrt(2) * mp.erfinv(1 - mp.mpf(alpha))
            error = mp.sqrt(v_t / t**2 + v_c / c**2)
            a, b, d = c**2 - q**2 * v_c, -2 * t * c, t**2 - q**2 * v_t
            root = mp.sqrt(b**2 - 4 * a * d)
            yield from _pairs(
                f"relative mean at {alpha}",
                _effect(arms, PLAY, (), alpha),
                relative=t / c - 1,
                ci_low=t / c * mp.exp(-q * error) - 1,
                ci_high=t / c * mp.exp(q * error) - 1,
                p_value=mp.erfc(abs(mp.log(t / c)) / error / mp.sqrt(2)),
                fieller_low=(-b - root) / (2 * a) - 1,
                fieller_high=(-b + root) / (2 * a) - 1,
            )


def tails() -> Iterator[Pair]:
    """Two-sided p-values down to 1e-300, and their logarithms below, for the normal distribution and Student's t."""
    with mp.workdps(DIGITS):
        for z in (0.01, 1.0, 1.959964, 5.0, 12.0, 25.0, 37.0, 60.0, 200.0):
            p = mp.erfc(mp.mpf(z) / mp.sqrt(2))
            ours, log10_p = two_sided(z)
            yield Pair(f"log10 p at z = {z}", log10_p, float(mp.log10(p)))
            if p > 1e-300:
                yield Pair(f"p at z = {z}", ours, float(p))
        for df in (3.0, 40.5, 998.0):
            for t in (0.01, 2.0, 8.0, 30.0, 60.0, 1e5):
                p = mp.betainc(mp.mpf(df) / 2, 0.5, 0, df / (df + mp.mpf(t) ** 2), regularized=True)
                ours, log10_p = two_sided(t, df)
                yield Pair(f"log10 p at t = {t}, {df} degrees", log10_p, float(mp.log10(p)))
                if p > 1e-300:
                    yield Pair(f"p at t = {t}, {df} degrees", ours, float(p))


def tea_tasting(arms: dict[str, Floats]) -> Iterator[Pair]:
    """tea-tasting's own analysis: means and ratios, raw and CUPED, normal and Welch."""
    import tea_tasting as tt

    names = [column.replace(".", "_") for column in COLUMNS]
    frame = pd.concat([pd.DataFrame(values, columns=names).assign(arm=arm) for arm, values in arms.items()])
    for distribution in ("normal", "t"):
        given: dict[str, Any] = {"use_t": distribution == "t", "equal_var": False, "confidence_level": 0.95}
        oracle = tt.Experiment(
            {
                "mean": tt.Mean("play", **given),
                "cuped mean": tt.Mean("play", "pre_play", **given),
                "ratio": tt.RatioOfMeans("ev", "views", **given),
                "cuped ratio": tt.RatioOfMeans("ev", "views", "pre_ev", "pre_views", **given),
            },
            variant="arm",
        ).analyze(frame, control="control")
        for name, metric, covariates in (
            ("mean", PLAY, ()),
            ("cuped mean", PLAY, ("pre.play",)),
            ("ratio", EVR, ()),
            ("cuped ratio", EVR, (PRE_EVR,)),
        ):
            result = oracle[name]
            yield from _pairs(
                f"tea-tasting {name}, {distribution}",
                _effect(arms, metric, covariates, distribution=distribution),
                difference=result.effect_size,
                difference_low=result.effect_size_ci_lower,
                difference_high=result.effect_size_ci_upper,
                difference_p_value=result.pvalue,
                relative=result.rel_effect_size,
                ci_low=result.rel_effect_size_ci_lower,
                ci_high=result.rel_effect_size_ci_upper,
            )


def main() -> None:
    """Compare, and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=folder, help="folder of the public data sets")
    asked = parser.parse_args()
    compared = list(pairs())
    worst = max(compared, key=lambda pair: pair.error)
    figures: dict[str, Any] = {
        "golden_max_relative_error": worst.error,
        "golden_worst": worst.what,
        "golden_numbers": len(compared),
        "golden_oracles": oracles(),
    }
    if asked.data:
        printed = list(published(asked.data))
        figures |= {
            "published_numbers": len(printed),
            "published_that_differ": [each.what for each in printed if not each.agrees],
        }
    print(json.dumps(figures, indent=2))  # noqa: T201


def _two_sample(
    name: str, moments: dict[str, Moments], metric: Metric, covariates: Sequence[str | Metric], oracle: CompareMeans
) -> Iterator[Pair]:
    for alpha in LEVELS:
        for distribution, test, interval in (
            ("normal", oracle.ztest_ind, oracle.zconfint_diff),
            ("t", oracle.ttest_ind, oracle.tconfint_diff),
        ):
            low, high = interval(alpha=alpha, usevar="unequal")
            yield from _pairs(
                f"{name}, {distribution} at {alpha}",
                _of(moments, metric, covariates, alpha, distribution),
                difference=oracle.d1.mean - oracle.d2.mean,
                difference_std_error=oracle.std_meandiff_separatevar,
                difference_low=low,
                difference_high=high,
                difference_p_value=test(usevar="unequal")[1],
            )


def _pairs(name: str, effect: Effect, **oracle: Any) -> Iterator[Pair]:
    for field, number in oracle.items():
        yield Pair(f"{name}: {field}", getattr(effect, field), float(number))


def _effect(
    arms: dict[str, Floats],
    metric: Metric,
    covariates: Sequence[str | Metric],
    alpha: float = 0.05,
    distribution: Any = "normal",
) -> Effect:
    return _of({arm: _moments(values) for arm, values in arms.items()}, metric, covariates, alpha, distribution)


def _of(
    moments: dict[str, Moments], metric: Metric, covariates: Sequence[str | Metric], alpha: float, distribution: Any
) -> Effect:
    estimates = adjust(moments, metric, covariates).estimates
    return compare(estimates["treatment"], estimates["control"], ARMS, alpha, distribution)


def _moments(values: Floats) -> Moments:
    """From two merged halves, so that the merge is compared too."""
    first, second = np.array_split(values, 2)
    return Moments.of(COLUMNS, first) + Moments.of(COLUMNS, second)


def _linearised(values: Floats, metric: str | Metric) -> Floats:
    columns = (metric,) if isinstance(metric, str) else metric.columns
    y, *x = (values[:, COLUMNS.index(column)] for column in columns)
    return y if not x else y.mean() / x[0].mean() + (y - y.mean() / x[0].mean() * x[0]) / x[0].mean()


if __name__ == "__main__":
    main()
