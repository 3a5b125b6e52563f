"""What lies in deploy/, and what a scrape has to be held against it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "alerts.yaml"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text())
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


def queries() -> list[str]:
    """Every query of the dashboard; the interval of its rates is what Grafana would put there."""
    return [
        target["expr"].replace("$__rate_interval", "4m")
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    ]


def labels_of(texts: Iterable[str]) -> dict[str, set[str]]:
    """The labels of every metric that is exported; of one that has no series yet, none are known."""
    labels: dict[str, set[str]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for suffix in SUFFIXES.get(family.type, ("",)):
                labels.setdefault(family.name + suffix, set())
            for sample in family.samples:
                labels.setdefault(sample.name, set()).update(sample.labels)
    return labels
