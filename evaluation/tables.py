"""Results of one model's seeds as estimates, for tables."""

from evaluation.metrics import Interval, interval, lift, over_seeds
from evaluation.results import Result
from evaluation.tasks import Protocol

# What each protocol is mostly judged by, for tables of little width.
JUDGED_BY: dict[Protocol, tuple[str, ...]] = {
    "official": ("recall@2", "recall@20", "mrr@2", "mrr@20"),
    "leave-one-out": ("recall@10", "ndcg@10", "recall@20", "mrr@20"),
    "backfilled": ("recall@20", "recall@100", "ndcg@10", "mrr@20"),
    "packed": ("recall@20", "recall@100", "ndcg@10", "mrr@20"),
    "progressive": ("recall@20", "recall@100", "ndcg@10", "mrr@20"),
}


def estimate(seeds: list[Result], metric: str) -> Interval:
    """A metric's mean over seeds and queries, with its interval over users.

    Raises:
        ValueError: the seeds did not answer the same queries.

    """
    _see_same_queries(seeds)
    return interval(over_seeds([r.values(metric).tolist() for r in seeds]), seeds[0].user_ids)


def difference(treated: list[Result], control: list[Result], metric: str) -> Interval:
    """Relative difference of two models, paired by query; each is the mean of its seeds.

    Raises:
        ValueError: they did not answer the same queries.

    """
    _see_same_queries(treated + control)
    one, two = (over_seeds([r.values(metric).tolist() for r in seeds]) for seeds in (treated, control))
    return lift(one, two, treated[0].user_ids)


def _see_same_queries(results: list[Result]) -> None:
    if any(r.user_ids.tolist() != results[0].user_ids.tolist() for r in results):
        raise ValueError(f"results of {results[0].task.name} and others do not answer the same queries")


def short(share: float) -> str:
    """A share of 1 in four digits.

    >>> short(0.27727), short(1)
    ('.2773', '1.0000')
    """
    return f"{share:.4f}".removeprefix("0")


def with_bounds(interval: Interval) -> str:
    """An estimate with its bounds.

    >>> with_bounds(Interval(0.5, 0.25, 0.75))
    '.5000 (.2500–.7500)'
    """
    return f"{short(interval.value)} ({short(interval.low)}–{short(interval.high)})"
