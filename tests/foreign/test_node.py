"""A service in Node: kafkajs with the codecs that it has, protobufjs on proto/, and kafkajs' own hash."""

import shutil
from pathlib import Path

import pytest

from contracts.config.settings import KafkaSettings
from tests.foreign.foreign_cases import account, run_or_skip
from tests.proto.test_evolution import PROTO

SOURCES = Path(__file__).with_name("node")
CODECS = 3


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with what it needs beside it, as `npm ci` installs that."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no Node with npm on the PATH")
    folder = tmp_path_factory.mktemp("node") / "foreign"
    shutil.copytree(SOURCES, folder)
    run_or_skip(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder, "Node's packages")
    return folder / "main.js"


def test_each_event_of_a_node_service_is_learned_from_or_in_the_dead_letters(
    program: Path, kafka: KafkaSettings, tmp_path: Path
) -> None:
    def command(settings: KafkaSettings, users: int) -> list[str]:
        events = PROTO / "driftline" / "v1" / "events.proto"
        where = [settings.bootstrap_servers, settings.topic_prefix, str(settings.partitions)]
        return ["node", str(program), str(events), *where, str(users)]

    account(kafka, tmp_path, command, CODECS)
