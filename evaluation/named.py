"""The baselines by their names, with the settings that each protocol's validation queries chose."""

from evaluation.baselines.base import Baseline
from evaluation.baselines.blend import Blend
from evaluation.baselines.ease import Ease
from evaluation.baselines.markov import Markov
from evaluation.baselines.popularity import Popularity
from evaluation.tasks import Protocol

POPULAR_DAYS = 3  # of the stream; MovieLens has no days worth the name
EASE_WEIGHT = 0.05  # beside a Markov chain


def baseline(name: str, protocol: Protocol) -> Baseline:
    """A baseline of `evaluation.tasks.BASELINES`.

    Of the authors' windows only the last behaviour counts for `markov-window`; otherwise the last five do.
    """
    window = Markov(window=5, decay=1.0) if protocol == "official" else Markov(lags=5, window=5)
    baselines: dict[str, Baseline] = {
        "popularity": Popularity(POPULAR_DAYS if protocol == "progressive" else None),
        "markov": Markov(),
        "markov-window": window,
        "ease": Ease(),
        "markov+ease": Blend(((1.0, window), (EASE_WEIGHT, Ease()))),
    }
    return baselines[name]
