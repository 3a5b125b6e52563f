"""Places that are filled at random, so that what is not ranked high is seen by somebody, with the chance of it logged.

Each place of a list is explored by a coin of its own; an explored place gets an item drawn uniformly, without
replacement, from all M items of the snapshot that the user may get, whatever their ranks. What was ranked fills the
other places in its order. So every one of these items comes to a given place at random with the chance share / M, its
propensity, which depends neither on the other places nor on what is ranked.
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
    items for the user than the list has places, none is explored.

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
    rows = model.allowed(want)
    if rows.size < len(picks):
        return None
    drawn = model.scored(random.choice(rows, int(at_random.sum()), replace=False), user_vector)
    taken = set(drawn.item_ids)
    ranked = iter([pick for pick in picks if pick[0] not in taken])
    fresh = iter([(*pair, EXPLORE) for pair in zip(drawn.item_ids, drawn.scores, strict=True)])
    mixed = [next(fresh if is_random else ranked) for is_random in at_random.tolist()]
    return Explored(mixed, drawn, dict.fromkeys(drawn.item_ids, share / rows.size))
