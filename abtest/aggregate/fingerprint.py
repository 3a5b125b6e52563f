"""A fingerprint of what a report was made of, so that two reports on the same data can be told to be so."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from abtest.aggregate.aggregate import Aggregate
from abtest.stats.jackknife import Buckets
from abtest.stats.moments import Floats, Moments

UNIT = 1000  # sums are hashed in thousandths: exact for counts and for seconds that were milliseconds


def digest(of: Aggregate) -> str:
    """SHA-256 of an aggregate's counts and sums, in hexadecimal.

    Users by arm, day and segment, every column's sum by arm, day, segment, part, snapshot version and bucket of users.
    They are whole thousandths and so come out the same in whatever order the aggregate was merged; products of columns
    do not, and are left out.
    """
    content: dict[str, Any] = {
        "arms": of.arms,
        "columns": of.columns,
        "covariates": of.covariates,
        "days": of.days,
        "in_two_arms": of.in_two_arms,
        "moments": _sums(of.moments),
        "segments": {name: _sums(by_arm) for name, by_arm in of.segments.items()},
        "versions": {version: _sums(by_arm) for version, by_arm in of.versions.items()},
        "parts": {kind: _sums(by_arm) for kind, by_arm in of.parts.items()},
        "buckets": {arm: _buckets(found) for arm, found in of.buckets.items()},
        "replicas": of.replicas,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sums(by_arm: dict[str, Moments]) -> dict[str, Any]:
    return {
        arm: [found.n, sorted(zip(found.columns, _whole(found.means * found.n), strict=True))]
        for arm, found in by_arm.items()
    }


def _buckets(found: Buckets) -> list[Any]:
    return [found.counts.tolist(), [_whole(row) for row in found.sums]]


def _whole(values: Floats) -> list[int]:
    numbers: Iterable[float] = values.tolist()
    return [round(value * UNIT) for value in numbers]
