"""kill -9, on a real process and a real broker: the weights are those of a trainer that was never disturbed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from contracts.config.settings import KafkaSettings, Settings, dump
from contracts.kafka import bus
from contracts.runtime.clock import HOUR_MS
from driftline.inspect.metrics import read_metrics
from driftline.processes import broker
from tests.trainer.test_resume import REGIMES, assert_equal, files
from tests.trainer.trainer_cases import START_MS, make_example, make_item, markov_examples, small_settings
from trainer.checkpoint import Checkpoints

pytestmark = pytest.mark.e2e
ITEMS, COUNT = 12, 600
PATIENCE_S = 240.0
LAST = {"t2diff/v000010", "two_tower/v000010"}


def fill(kafka: KafkaSettings) -> None:
    """A log whose last example calls for the last publication."""
    producer = bus.producer(kafka)
    for item_id in range(1, ITEMS + 1):
        value = make_item(item_id).SerializeToString()
        producer.send(kafka.topic(bus.ITEMS), key=bus.key_of(item_id), value=value, timestamp_ms=START_MS)
    examples = markov_examples(COUNT, ITEMS)
    last = make_example([1], 2, START_MS + 1000 * HOUR_MS, user_id=COUNT + 1)
    for example in [*examples, last]:
        producer.send(
            kafka.topic(bus.EXAMPLES),
            value=example.SerializeToString(),
            partition=example.user_id % 2,
            timestamp_ms=example.time_ms,
        )
    producer.close()


class Trainer:
    """The process, or with `processes` > 1 torchrun and those, and what it leaves on the disk."""

    def __init__(self, root: Path, kafka: KafkaSettings, processes: int = 1) -> None:
        self.settings: Settings = small_settings(root, checkpoint_every_examples=16, regimes=REGIMES).model_copy(
            update={"kafka": kafka}
        )
        self._file, self._log, self._ready = (root / name for name in ("settings.yaml", "trainer.log", "ready.json"))
        root.mkdir(parents=True, exist_ok=True)
        dump(self.settings, self._file)
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        self._python = [sys.executable, *(torchrun if processes > 1 else [])]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._ready.unlink(missing_ok=True)
            command = [*self._python, "-m", "driftline", "trainer", "-s", str(self._file)]
            command += ["--ready-file", str(self._ready)]
            self._process = subprocess.Popen(command, stderr=log, stdout=log)

    @property
    def ready(self) -> bool:
        return self._ready.exists()

    def steps(self) -> set[str]:
        """Names of all that has come and gone on the disk so far, half-written things too."""
        homes = (self.settings.state / "trainer", *(self.settings.snapshots / name for name in ("t2diff", "two_tower")))
        return {f"{home.name}/{path.name}" for home in homes if home.is_dir() for path in home.iterdir()}

    def wait(self, done: Any) -> None:
        assert self._process
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.0005)

    def close(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()  # torchrun takes its processes with it
            self._process.wait(PATIENCE_S)

    def end(self, how: signal.Signals) -> None:
        """Send a signal to the trainer, or to the first of its processes."""
        assert self._process
        os.kill(json.loads(self._ready.read_text())["pid"] if self._ready.exists() else self._process.pid, how)
        self._process.wait(PATIENCE_S)

    def finish(self) -> dict[str, Any]:
        """Run to the end of the log, stop, and give the state that is left."""
        self.start()
        self.wait(lambda: self.ready)
        port = int(json.loads(self._ready.read_text())["metrics_port"])
        self.wait(lambda: read_metrics([port]).total("trainer_tested_examples") == COUNT)
        self.end(signal.SIGTERM)
        assert self._process
        assert self._process.returncode == 0, self._log.read_text()
        checkpoints = Checkpoints(self.settings)
        state = checkpoints.newest()
        checkpoints.close()
        assert state is not None
        return state


def _moved(trainer: Trainer, seen: set[str], enough: int) -> bool:
    seen |= trainer.steps()
    return len(seen) >= enough or seen >= LAST


def kill_again_and_again(trainer: Trainer, kills: int, seed: int) -> int:
    """Kill the process after a number of changes on the disk; how often it died before it had come to the end."""
    chance, deaths = random.Random(seed), 0
    for _ in range(kills):
        seen = trainer.steps()
        enough = len(seen) + chance.randint(1, 12)
        trainer.start()
        trainer.wait(partial(_moved, trainer, seen, enough))
        deaths += not trainer.steps() >= LAST
        trainer.end(signal.SIGKILL)
    return deaths


def compare(root: Path, kafka: KafkaSettings, kills: int, seed: int) -> int:
    fill(kafka)
    with closing(Trainer(root / "calm", kafka)) as calm:
        expected = calm.finish()
    with closing(Trainer(root / "killed", kafka)) as killed:
        deaths = kill_again_and_again(killed, kills, seed)
        found = killed.finish()
    assert found["tested"] == COUNT
    assert_equal(expected, found)
    assert files(calm.settings) == files(killed.settings)
    return deaths


def test_killed_three_times_it_comes_to_the_same_weights(tmp_path: Path, embedded: KafkaSettings) -> None:
    """On Apache Kafka it is killed by the proof below."""
    assert compare(tmp_path, embedded, kills=3, seed=0) >= 2


def kill_one_of_two(trainer: Trainer) -> dict[str, Any]:
    """Under torchrun: the state after one of the processes has died half-way and both were started again."""
    trainer.start()
    seen: set[str] = set()
    trainer.wait(lambda: trainer.ready and _moved(trainer, seen, 25))
    assert not trainer.steps() >= LAST
    trainer.end(signal.SIGKILL)
    return trainer.finish()


def test_two_processes_of_which_one_is_killed_learn_from_each_example_once(
    tmp_path: Path, embedded: KafkaSettings
) -> None:
    fill(embedded)
    with closing(Trainer(tmp_path, embedded, processes=2)) as trainer:
        found = kill_one_of_two(trainer)
    for line in found["pupils"].values():
        assert line["progress"]["sums"]["all"][0] == COUNT
    assert sum(found["learned_offsets"].values()) == COUNT


@pytest.mark.proof
@pytest.mark.timeout(1000)
def test_two_processes_of_which_one_is_killed_come_to_what_undisturbed_ones_come_to(
    tmp_path: Path, kafka: KafkaSettings
) -> None:
    fill(kafka)
    with closing(Trainer(tmp_path / "killed", kafka, processes=2)) as killed:
        found = kill_one_of_two(killed)
    with closing(Trainer(tmp_path / "calm", kafka, processes=2)) as calm:
        assert_equal(calm.finish(), found)
    assert files(calm.settings) == files(killed.settings)
    with closing(Trainer(tmp_path / "alone", kafka)) as alone:
        by_one = alone.finish()
    for name in ("tested", "learned_offsets", "item_offsets", "catalogue"):
        assert_equal(by_one[name], found[name], at_least=1)


@pytest.mark.proof
@pytest.mark.timeout(3000)
def test_killed_again_and_again_it_comes_to_the_same_weights(tmp_path: Path, apache: KafkaSettings) -> None:
    deaths = 0
    for seed in range(8):
        kafka = apache.model_copy(update={"topic_prefix": f"{apache.topic_prefix}{seed}."})
        broker.prepare(kafka)
        deaths += compare(tmp_path / str(seed), kafka, kills=8, seed=seed)
    assert deaths >= 40
