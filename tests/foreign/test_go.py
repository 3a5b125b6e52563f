"""A service in Go: classes generated from proto/, franz-go with each codec, and its hash where it is not told better.

The first build fetches two modules and takes some minutes on one core; Go keeps what it has built.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.runtime.clock import ManualClock
from contracts.wire.events_pb2 import DeadLetter, Example, Feedback
from feature_repo.store import apply
from tests.proto.test_evolution import BUF, PROTO
from tests.stream.stream_cases import Running, Sender, read_all, settings_for

SOURCES = Path(__file__).with_name("go")
CODECS = 5
USERS = 100  # to each codec, and to the hash
NOW_MS = 1_772_323_300_000
BUILD_TIMEOUT_S = 800

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, built from its sources and from proto/ as a stranger would."""
    if shutil.which("go") is None:
        pytest.skip("there is no Go on the PATH")
    folder = tmp_path_factory.mktemp("go") / "foreign"
    shutil.copytree(SOURCES, folder)
    fetched = subprocess.run(
        ["go", "mod", "download"], cwd=folder, check=False, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S
    )
    if fetched.returncode != 0:
        pytest.skip(f"Go's modules cannot be fetched: {fetched.stderr.strip()}")
    for command in ([str(BUF), "generate", str(PROTO), "--template", "buf.gen.yaml"], ["go", "build", "-o", "foreign"]):
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
        assert done.returncode == 0, done.stderr
    return folder / "foreign"


def test_each_event_of_a_go_service_is_learned_from_or_in_the_dead_letters(
    program: Path, kafka: KafkaSettings, tmp_path: Path
) -> None:
    apply(tmp_path / "features")
    settings = settings_for(kafka, tmp_path)
    sender = Sender(kafka)
    sender.items(1)
    sender.close()
    arguments = [kafka.bootstrap_servers, kafka.topic_prefix, str(kafka.partitions), str(USERS)]
    arguments += ["old"] if kafka.gapless else []  # the embedded broker
    subprocess.run([program, *arguments], check=True, timeout=100)

    with Running(settings, clock=ManualClock(NOW_MS)) as running:
        running.take(2 * (CODECS + 1) * USERS)
        assert running.value("stream_held_feedback") == 0
    examples = [Example.FromString(value) for value in read_all(kafka, bus.EXAMPLES)]
    letters = [DeadLetter.FromString(value) for value in read_all(kafka, bus.DEAD_LETTERS)]
    assert {letter.reason for letter in letters} == {"wrong_partition"}
    learned = sorted(example.user_id for example in examples)
    refused = sorted(Feedback.FromString(letter.value).user_id for letter in letters)
    everyone = list(range(1, (CODECS + 1) * USERS + 1))
    assert sorted(learned + refused) == everyone
    assert learned[: CODECS * USERS] == everyone[: CODECS * USERS]
    assert not any(example.follow for example in examples), "what is left out is false"
