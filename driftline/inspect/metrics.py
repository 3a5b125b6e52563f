"""Reading the workers' Prometheus metrics: values, and quantiles of histograms."""

import math
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach this machine's loopback

Labels = frozenset[tuple[str, str]]


@dataclass
class Scrape:
    """Samples by name and labels, added up over the processes that they were read from."""

    samples: dict[str, dict[Labels, float]] = field(default_factory=lambda: defaultdict(dict))

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric over every label that is not given; 0 where there is none."""
        wanted = set(labels.items())
        return sum(value for key, value in self.samples.get(name, {}).items() if wanted <= key)

    def values(self, name: str, label: str) -> dict[str, float]:
        """A metric by the values of one label, summed over the others."""
        out: dict[str, float] = defaultdict(float)
        for key, value in self.samples.get(name, {}).items():
            out[dict(key).get(label, "")] += value
        return dict(out)

    def quantile(self, name: str, q: float, **labels: str) -> float | None:
        """A quantile of the histogram `name`, in its unit; None while it is empty."""
        wanted = set(labels.items())
        buckets: dict[float, float] = defaultdict(float)
        for key, value in self.samples.get(f"{name}_bucket", {}).items():
            if wanted <= key:
                buckets[float(dict(key)["le"])] += value
        return quantile(buckets, q)


def read_metrics(ports: Iterable[int]) -> Scrape:
    """Read and add up the metrics of several processes on this machine."""
    scrape = Scrape()
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values = scrape.samples[sample.name]
                key = frozenset(sample.labels.items())
                values[key] = values.get(key, 0.0) + sample.value
    return scrape


def quantile(cumulative: Mapping[float, float], q: float) -> float | None:
    """Interpolate a quantile as Prometheus' histogram_quantile does: linearly within a bucket.

    >>> quantile({1.0: 0, 2.0: 10, math.inf: 10}, 0.5)
    1.5
    """
    edges = sorted(cumulative)
    if not edges or not cumulative[edges[-1]]:
        return None
    rank = q * cumulative[edges[-1]]
    lower, below = 0.0, 0.0
    for edge in edges:
        if cumulative[edge] >= rank:
            if math.isinf(edge):
                return lower
            inside = cumulative[edge] - below
            return lower + (edge - lower) * ((rank - below) / inside if inside else 1.0)
        lower, below = edge, cumulative[edge]
    return lower
