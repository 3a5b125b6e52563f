"""Metrics are read as Prometheus would read them."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter

from contracts.runtime.worker import seconds_histogram, serve_metrics
from driftline.inspect.metrics import read_metrics


def test_processes_are_added_up_and_quantiles_read_off() -> None:
    ports = []
    rng = np.random.default_rng(1)
    values = rng.lognormal(-3, 1, 4000)
    for half in np.split(values, 2):
        registry = CollectorRegistry()
        histogram = seconds_histogram("took_seconds", "t", registry, ("arm",))
        for value in half:
            histogram.labels("a").observe(value)
        Counter("things", "t", ["kind"], registry=registry).labels("x").inc(3)
        ports.append(serve_metrics(registry))
    metrics = read_metrics(ports)
    assert metrics.total("things_total") == 6
    assert metrics.values("things_total", "kind") == {"x": 6}
    for q in (0.5, 0.99):
        assert metrics.quantile("took_seconds", q, arm="a") == pytest.approx(np.quantile(values, q), rel=0.13)
    assert metrics.quantile("took_seconds", 0.5, arm="b") is None
