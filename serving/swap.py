"""What to load next: a pure function over what is live, what is loaded and what has failed.

absent ──whole──► loaded ──LIVE names a later delta of the same base──► + missing deltas
                  │   └──── LIVE names anything else ──whole──► loaded
                  └──────── the deltas cannot be applied ──whole──► loaded
└───────────── a load that has failed is not tried again while LIVE names its version; the old one serves on
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from contracts.snapshots.snapshot import Version


class Load(NamedTuple):
    """Something to load: a version from the disk, or onto what is loaded the deltas that lead to it."""

    model: str
    version: str
    deltas: tuple[str, ...] = ()  # in their order; (): the version with all that it is based on


def to_load(live: Mapping[str, str | None], loaded: Mapping[str, str], failed: AbstractSet[Load]) -> list[Load]:
    """What to load now, at most one thing a model, in the order of the models' names.

    Args:
        live: what each model's pointer names; None before its first snapshot.
        loaded: the version of each model that serves now.
        failed: loads that could not be done.

    >>> to_load({"a": "v000002", "b": None, "c": "v000001"}, {"a": "v000001", "c": "v000001"}, set())
    [Load(model='a', version='v000002', deltas=())]
    >>> to_load({"a": "v000002+003"}, {"a": "v000002+001"}, set())
    [Load(model='a', version='v000002+003', deltas=('v000002+002', 'v000002+003'))]

    """
    wanted = (
        _ways(model, version, loaded.get(model))
        for model, version in sorted(live.items())
        if version is not None and loaded.get(model) != version
    )
    return [untried[0] for ways in wanted if (untried := [load for load in ways if load not in failed])]


def _ways(model: str, version: str, loaded: str | None) -> list[Load]:
    """How a version can be brought in, the cheapest first."""
    wanted, held = Version.parse(version), Version.parse(loaded or "")
    whole = Load(model, version)
    if wanted is None or held is None or held.base != wanted.base or held > wanted:
        return [whole]
    return [Load(model, version, tuple(str(each) for each in wanted.chain()[held.sequence + 1 :])), whole]
