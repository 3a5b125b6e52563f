"""The alerting rules speak of metrics that exist."""

import re
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry

from contracts.kafka.batches import ReadCounts
from contracts.messages.events import Reason
from contracts.snapshots.staleness import STALE_MS
from serving.metrics import ServingMetrics
from stream.metrics import StreamMetrics
from trainer.meters import Meters

RULES = Path(__file__).parents[2] / "deploy" / "alerts.yaml"


def test_every_metric_and_label_of_a_rule_is_exported() -> None:
    exported: dict[str, set[str]] = {}
    reads = CollectorRegistry()
    ReadCounts().register(reads)
    for registry in (Meters().registry, ServingMetrics().registry, StreamMetrics().registry, reads):
        for collector, names in registry._collector_to_names.items():
            labels = set(getattr(collector, "_labelnames", ()))
            exported |= dict.fromkeys(names, labels)
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 7
    for rule in rules:
        named = re.findall(r"((?:trainer|serving|stream|kafka)_\w+)(?:\{(\w+)=)?", rule["expr"])
        assert named, rule["alert"]
        told = {*re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])}
        for metric, chosen_by in named:
            assert metric in exported, metric
            assert told | {chosen_by} - {""} <= exported[metric], metric


def test_the_first_of_a_kind_is_not_missed() -> None:
    """`increase` sees no step where a series begins: it begins at 0, or the rule asks for new ones as well."""
    reasons = StreamMetrics().registry
    for reason in Reason:
        assert reasons.get_sample_value("stream_dead_letters_total", {"reason": str(reason)}) == 0
    counts, registry = ReadCounts(), CollectorRegistry()
    counts.register(registry)
    assert not [sample for metric in registry.collect() for sample in metric.samples]
    groups = yaml.safe_load(RULES.read_text())["groups"]
    (rule,) = (rule for group in groups for rule in group["rules"] if rule["alert"] == "BatchNotDecoded")
    metric = "kafka_unreadable_batches_total"
    assert rule["expr"] == f"increase({metric}[15m]) > 0 or ({metric} > 0 unless {metric} offset 15m)"


def test_an_arm_is_stale_where_the_one_definition_says_so() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    (rule,) = (rule for group in groups for rule in group["rules"] if rule["alert"] == "ArmIsStale")
    assert rule["expr"].endswith(f"> {STALE_MS // 1000}")
