"""Places that are filled at random, so that what is not ranked high is seen by somebody, with the chance of it logged.

Each place of a list is explored by a coin of its own; an explored place gets an item drawn uniformly, without
replacement, from all M items of the snapshot that the user has not seen, whatever their ranks. What was ranked fills
the other places in its order, and those whose item nobody gets any more. So every other item comes to a given place at
random with the chance share / M, its propensity, which depends neither on the other places nor on what is ranked, and
for which no withdrawn item of a large catalogue has to be counted.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contracts.config.experiment import EXPLORE
from contracts.features import Floats
from serving.blend import Pick
from serving.model import Candidates, LoadedModel, Want

UNSIGNED = (1 << 64) - 1  # ids and times are signed, seeds are not


class Explored(NamedTuple):
    """A list of which some places were filled at random."""

    picks: Sequence[Pick]
    candidates: Candidates  # what was drawn, scored as the model's own
    propensities: dict[int, float]  # of the items drawn


def explore(
    picks: Sequence[Pick], share: float, model: LoadedModel, want: Want, user_vector: Floats | None
) -> Explored | None:
    """Fill each place at random with probability `share`; None where none was.

    What is drawn is a function of the user, the moment of the request and the snapshot. Where the snapshot has fewer
    unseen items than the list has places, none is explored.

    Args:
        picks: the list as it was ranked.
        share: of the places, above 0.
        model: whose items are drawn.
        want: what the request wants; items seen or withdrawn are not drawn.
        user_vector: (d,) that the items are scored by; None: by their positives.

    """
    seeds = (want.user_id & UNSIGNED, want.now_ms & UNSIGNED, model.manifest.sampling_seed)
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds)))
    at_random = random.random(len(picks)) < share
    if not at_random.any():
        return None
    rows = model.unseen(want)
    if rows.size < len(picks):
        return None
    drawn = model.scored(random.choice(rows, int(at_random.sum()), replace=False), user_vector)
    hidden = want.hidden or (lambda _item: False)
    found = {
        place: (item, score, EXPLORE)
        for place, item, score in zip(np.flatnonzero(at_random).tolist(), drawn.item_ids, drawn.scores, strict=True)
        if not hidden(item)
    }
    if not found:
        return None
    taken = {item for item, _, _ in found.values()}
    ranked = iter([pick for pick in picks if pick[0] not in taken])
    mixed = [found[place] if place in found else next(ranked) for place in range(len(picks))]
    return Explored(mixed, drawn, dict.fromkeys(taken, share / rows.size))
