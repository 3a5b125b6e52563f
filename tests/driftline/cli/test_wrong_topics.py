"""A worker that would read a part of a topic alone says so at its start, whichever it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from kafka.admin import NewTopic

from contracts.config.settings import KafkaSettings, dump
from contracts.kafka import bus
from feature_repo.store import apply
from tests.stream.stream_cases import settings_for


@pytest.fixture
def many_items(embedded: KafkaSettings) -> KafkaSettings:
    """Topics of which `items` has three partitions, as a broker that creates topics by itself may give it."""
    settings = embedded.model_copy(update={"topic_prefix": "many."})
    client = bus.admin(settings)
    client.create_topics([NewTopic(settings.topic(bus.ITEMS), 3, 1)])
    bus.ensure_topics(settings, client)
    client.close()
    return settings


@pytest.mark.parametrize(
    "words", [["stream"], ["archive"], ["trainer"], ["serve"], ["experiment", "collect"], ["import", "log.csv"]]
)
def test_items_in_several_partitions_are_refused(many_items: KafkaSettings, tmp_path: Path, words: list[str]) -> None:
    settings = settings_for(many_items, tmp_path)
    apply(settings.feature_repo)
    dump(settings, tmp_path / "settings.yaml")
    command = [sys.executable, "-m", "driftline", *words, "-s", str(tmp_path / "settings.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    if words[0] != "import":  # a worker, whose log is JSON to its last line
        said = f"driftline: {json.loads(said)['event']}"
    assert said == "driftline: Topic many.items has 3 partitions, and the settings say 1 (kafka.partitions)."
