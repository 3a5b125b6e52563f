"""How the candidates of an arm's sources become one list. Pure; where a coin is needed, it is the caller's."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

Ranked = Sequence[tuple[int, float]]  # (item, score), best first


Pick = tuple[int, float, str]  # an item of the blended list, its score, and the source that contributed it


def quota(candidates: Mapping[str, Ranked], shares: Mapping[str, float], k: int) -> list[Pick]:
    """The best items of each source, as many as its share of k, spread evenly over the list.

    At each place the source that is furthest behind its share picks its best item that is not taken yet (the sequence
    of Adams' and Webster's divisor methods: by any place, a source has its share of the places up to rounding). What a
    source cannot fill, the others do. Equal need is settled by the order of `shares`.

    >>> found = {"a": [(1, 0.9), (2, 0.8), (3, 0.7)], "b": [(2, 5.0), (4, 4.0)]}
    >>> quota(found, {"a": 2, "b": 1}, 3)
    [(1, 0.9, 'a'), (2, 5.0, 'b'), (3, 0.7, 'a')]

    """

    def turns() -> Iterator[str]:
        taken = dict.fromkeys(shares, 0)
        while True:
            source = min(taken, key=lambda name: (taken[name] + 0.5) / shares[name])
            taken[source] += 1
            yield source

    return _draw(candidates, turns(), k)


def team_draft(candidates: Mapping[str, Ranked], k: int, coin: np.random.Generator) -> list[Pick]:
    """Sources take turns in rounds of random order; at its turn a source picks its best item that is not taken yet.

    Radlinski, Kurup & Joachims, "How does clickthrough data reflect retrieval quality?", CIKM 2008, Algorithm 2, with
    any number of teams.

    >>> coin = np.random.default_rng(0)
    >>> [source for _, _, source in team_draft({"a": [(1, 0.9), (2, 0.8)], "b": [(1, 5.0), (3, 4.0)]}, 4, coin)]
    ['a', 'b', 'a']

    """
    names = list(candidates)

    def turns() -> Iterator[str]:
        while True:
            yield from (names[i] for i in coin.permutation(len(names)))

    return _draw(candidates, turns(), k)


def _draw(candidates: Mapping[str, Ranked], turns: Iterator[str], k: int) -> list[Pick]:
    """Let the sources pick by turns until there are k items, or none of them has any left."""
    left = {source: iter(ranked) for source, ranked in candidates.items()}
    taken: set[int] = set()
    picks: list[Pick] = []
    while left and len(picks) < k:
        source = next(turns)
        if source not in left:
            continue
        best = next(((item, score) for item, score in left[source] if item not in taken), None)
        if best is None:
            del left[source]
            continue
        taken.add(best[0])
        picks.append((*best, source))
    return picks
