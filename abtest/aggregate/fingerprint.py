"""A fingerprint of what a report was made of, so that two reports on the same data can be told to be so."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from abtest.aggregate.aggregate import Aggregate
from abtest.stats.jackknife import Buckets
from abtest.stats.moments import Floats, Moments

UNIT = 1000  # sums are hashed in thousandths: exact for counts and for seconds that were milliseconds


def digest(aggregate: Aggregate) -> str:
    """SHA-256 of an aggregate's counts and sums, in hexadecimal.

    Users by arm, day and segment, every column's sum by arm, day, segment, part, snapshot version and bucket of users.
    They are whole thousandths and so come out the same in whatever order the aggregate was merged; products of columns
    do not, and are left out.
    """
    content: dict[str, Any] = {
        "arms": aggregate.arms,
        "columns": aggregate.columns,
        "covariates": aggregate.covariates,
        "days": aggregate.days,
        "in_two_arms": aggregate.in_two_arms,
        "moments": _sums(aggregate.moments),
        "segments": {name: _sums(by_arm) for name, by_arm in aggregate.segments.items()},
        "versions": {version: _sums(by_arm) for version, by_arm in aggregate.versions.items()},
        "parts": {kind: _sums(by_arm) for kind, by_arm in aggregate.parts.items()},
        "buckets": {arm: _buckets(hashed) for arm, hashed in aggregate.buckets.items()},
        "replicas": aggregate.replicas,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sums(by_arm: dict[str, Moments]) -> dict[str, Any]:
    return {
        arm: [sums.n, sorted(zip(sums.columns, _whole(sums.means * sums.n), strict=True))]
        for arm, sums in by_arm.items()
    }


def _buckets(buckets: Buckets) -> list[Any]:
    return [buckets.counts.tolist(), [_whole(row) for row in buckets.sums]]


def _whole(values: Floats) -> list[int]:
    numbers: Iterable[float] = values.tolist()
    return [round(value * UNIT) for value in numbers]
