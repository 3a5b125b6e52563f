"""Several p-values judged together.

statsmodels has these (`statsmodels.stats.multitest.multipletests`), but takes a second to import, and a report from
state is to take a twentieth of one; each is one line. Tests hold them against statsmodels.

Sources:
    [H79] Holm: A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6(2), 1979.
    [BH95] Benjamini, Hochberg: Controlling the false discovery rate. JRSS B 57(1), 1995.
"""

from collections.abc import Hashable, Mapping
from typing import Literal, TypeVar

import numpy as np

Correction = Literal["holm", "bh", "none"]
Key = TypeVar("Key", bound=Hashable)


def adjust(p_values: Mapping[Key, float | None], correction: Correction) -> dict[Key, float | None]:
    """Adjusted p-values: what is below alpha after it counts.

    Holm's keep the chance of any false alarm at alpha ([H79]); Benjamini and Hochberg's the expected share of false
    alarms among all ([BH95], for p-values that are independent or positively dependent). A None stays one and does not
    count: it is no test.

    Raises:
        ValueError: the correction is not known, or a p-value is not between 0 and 1.

    >>> adjust({"evr": 0.01, "follow_rate": 0.04, "latency": None, "play": 0.03}, "holm")
    {'evr': 0.03, 'follow_rate': 0.06, 'latency': None, 'play': 0.06}
    >>> adjust({"evr": 0.01, "follow_rate": 0.04, "play": 0.03}, "bh")
    {'evr': 0.03, 'follow_rate': 0.04, 'play': 0.04}

    """
    present = {key: p_value for key, p_value in p_values.items() if p_value is not None}
    p = np.array(list(present.values()), np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values {p.tolist()} must lie between 0 and 1")
    order = np.argsort(p, kind="stable")
    ranks = np.arange(1, len(p) + 1)
    if correction == "holm":
        p[order] = np.minimum(np.maximum.accumulate(p[order] * (len(p) - ranks + 1)), 1.0)
    elif correction == "bh":
        p[order] = np.minimum.accumulate((p[order] * len(p) / ranks)[::-1])[::-1]
    elif correction != "none":
        raise ValueError(f"correction is '{correction}'; allowed are holm, bh and none")
    adjusted = dict(zip(present, p.tolist(), strict=True))
    return {key: adjusted.get(key) for key in p_values}
