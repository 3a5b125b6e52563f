"""A service in Go: classes generated from proto/, franz-go with each codec, and its hash where it is not told better.

The first build fetches two modules and takes some minutes on one core; Go keeps what it has built.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from contracts.config.settings import KafkaSettings
from tests.foreign.foreign_cases import BUILD_TIMEOUT_S, account, run_or_skip
from tests.proto.test_evolution import BUF, PROTO

SOURCES = Path(__file__).with_name("go")
CODECS = 5

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, built from its sources and from proto/ as a stranger would."""
    if shutil.which("go") is None:
        pytest.skip("there is no Go on the PATH")
    folder = tmp_path_factory.mktemp("go") / "foreign"
    shutil.copytree(SOURCES, folder)
    run_or_skip(["go", "mod", "download"], folder, "Go's modules")
    for command in ([str(BUF), "generate", str(PROTO), "--template", "buf.gen.yaml"], ["go", "build", "-o", "foreign"]):
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
        assert done.returncode == 0, done.stderr
    return folder / "foreign"


def test_each_event_of_a_go_service_is_learned_from_or_in_the_dead_letters(
    program: Path, kafka: KafkaSettings, tmp_path: Path
) -> None:
    def command(settings: KafkaSettings, users: int) -> list[str]:
        old = ["old"] if settings.gapless else []  # the embedded broker
        return [
            str(program),
            settings.bootstrap_servers,
            settings.topic_prefix,
            str(settings.partitions),
            str(users),
            *old,
        ]

    account(kafka, tmp_path, command, CODECS)
