"""The alerting rules speak of metrics that exist."""

import re
from pathlib import Path

import yaml

from contracts.snapshots.staleness import STALE_MS
from serving.metrics import ServingMetrics
from trainer.meters import Meters

RULES = Path(__file__).parents[2] / "deploy" / "alerts.yaml"


def test_every_metric_and_label_of_a_rule_is_exported() -> None:
    exported: dict[str, set[str]] = {}
    for registry in (Meters().registry, ServingMetrics().registry):
        for collector, names in registry._collector_to_names.items():
            labels = set(getattr(collector, "_labelnames", ()))
            exported |= dict.fromkeys(names, labels)
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 7
    for rule in rules:
        named = re.findall(r"(?:trainer|serving)_\w+", rule["expr"])
        assert named, rule["alert"]
        told = {*re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]), *re.findall(r"\{(\w+)=", rule["expr"])}
        for metric in named:
            assert metric in exported, metric
            assert told <= exported[metric], metric


def test_an_arm_is_stale_where_the_one_definition_says_so() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    (rule,) = (rule for group in groups for rule in group["rules"] if rule["alert"] == "ArmIsStale")
    assert rule["expr"].endswith(f"> {STALE_MS // 1000}")
