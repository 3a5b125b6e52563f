"""What to load next: a pure function over what is live, what is loaded and what has failed.

absent ──load──► loaded ──LIVE moves──► loaded (newer)
└───────────── a snapshot that cannot be loaded is not tried again; the old one serves on
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet


def to_load(
    live: Mapping[str, str | None], loaded: Mapping[str, str], failed: AbstractSet[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The (model, version) pairs to load now, in the order of the models' names.

    Args:
        live: what each model's pointer names; None before its first snapshot.
        loaded: the version of each model that serves now.
        failed: snapshots that could not be loaded.

    >>> to_load({"a": "v2", "b": None, "c": "v1"}, {"a": "v1", "c": "v1"}, set())
    [('a', 'v2')]
    >>> to_load({"a": "v2"}, {"a": "v1"}, {("a", "v2")})
    []

    """
    return [
        (model, version)
        for model, version in sorted(live.items())
        if version is not None and loaded.get(model) != version and (model, version) not in failed
    ]
