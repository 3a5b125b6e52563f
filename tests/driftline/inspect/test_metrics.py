"""Metrics are read as Prometheus would read them."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter

from contracts.config.metrics import MetricsSettings
from contracts.runtime.clock import SystemClock
from contracts.runtime.endpoint import Endpoint
from contracts.runtime.worker import seconds_histogram
from driftline.inspect.metrics import read_metrics


def test_processes_are_added_up_and_quantiles_read_off() -> None:
    endpoints: list[Endpoint] = []
    rng = np.random.default_rng(1)
    values = rng.lognormal(-3, 1, 4000)
    for half in np.split(values, 2):
        registry = CollectorRegistry()
        histogram = seconds_histogram("took_seconds", "t", registry, ("arm",))
        for value in half:
            histogram.labels("a").observe(value)
        Counter("things", "t", ["kind"], registry=registry).labels("x").inc(3)
        endpoints.append(Endpoint("replica", MetricsSettings(), SystemClock()))
        endpoints[-1].show(registry)
    metrics = read_metrics(endpoint.port for endpoint in endpoints)
    for endpoint in endpoints:
        endpoint.close()
    assert metrics.total("things_total") == 6
    assert metrics.values("things_total", "kind") == {"x": 6}
    for q in (0.5, 0.99):
        assert metrics.quantile("took_seconds", q, arm="a") == pytest.approx(np.quantile(values, q), rel=0.13)
    assert metrics.quantile("took_seconds", 0.5, arm="b") is None
