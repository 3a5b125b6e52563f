"""Several collectors, each with a share of the partitions: together they come to what one alone comes to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from abtest.analyse.analysis import analyse
from abtest.collect.parts import Share, load_state, require_division, saved_parts
from abtest.collect.records import Unused
from abtest.collect.rules import Rules
from abtest.collect.state import CollectorState, folded
from abtest.collect.store import Saved, load, save
from abtest.collect.worker import continued
from contracts.config.changes import Change
from contracts.config.settings import KafkaSettings, Settings, SettingsError, dump
from contracts.kafka import bus
from contracts.runtime.clock import HOUR_MS, MINUTE_MS, SystemClock
from contracts.runtime.durable import StateError
from driftline.processes.supervisor import Child, Supervisor
from tests.abtest.abtest_cases import START, experiment, exposure, feedback, observe
from tests.contracts.runtime.endpoint_cases import get
from tests.serving.replicas import driftline, until
from tests.stream.stream_cases import Sender

USERS, HALF = 60, 4


def settings_in(home: Path, partitions: int = 4, kafka: KafkaSettings | None = None) -> Settings:
    return Settings(
        kafka=kafka or KafkaSettings(bootstrap_servers="h:1", partitions=partitions),
        feature_repo=home / "features",
        snapshots=home / "snapshots",
        state=home / "state",
        experiment=experiment(),
    )


def keep(settings: Settings, share: Share, state: CollectorState) -> None:
    save(Saved(state), share.path(settings))


def test_parts_are_read_as_one_state(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    rules = Rules.of(settings)
    events = [[exposure(user, request=f"r{user}"), feedback(user, request=f"r{user}")] for user in range(1, 9)]
    whole = observe(CollectorState(rules), *(event for each in events for event in each))
    paused = rules.after([Change("pause", START)])
    for number in (1, 2, 3):
        mine = [event for each in events for event in each if Share(number, 3).has(event.user_id % 4)]
        part = observe(CollectorState(paused if number == 2 else rules), *mine)  # it has read further of the changes
        keep(settings, Share(number, 3), part)
    state = load_state(settings)
    assert folded(state).users == folded(whole).users
    assert state.rules == paused
    assert [path.name for path in saved_parts(settings)] == [f"abtest-{number}-of-3.npz" for number in (1, 2, 3)]


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "a/b", "1/0", "-1/4", "1/4/2", ""])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="the second of four collectors has --share 2/4"):
        Share.parse(text)


def test_a_missing_part_and_other_divisions_are_said(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert saved_parts(settings) == []
    empty = CollectorState(Rules.of(settings))
    keep(settings, Share(1, 2), empty)
    with pytest.raises(StateError, match=r"abtest-2-of-2.npz is not there, the part of collector 2/2: a report needs"):
        load_state(settings)
    keep(settings, Share(), empty)
    with pytest.raises(StateError, match=r"has abtest.npz, abtest-1-of-2.npz, of collectors that were divided"):
        load_state(settings)
    with pytest.raises(SettingsError, match=r"abtest.npz was collected as 1/1, and this is collector 2/2"):
        require_division(settings, Share(2, 2))
    with pytest.raises(SettingsError, match="--share 5/5: there are 4 partitions"):
        require_division(settings, Share(5, 5))


def test_a_part_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    """Else its users would count twice, and those of the other not at all."""
    settings = settings_in(tmp_path)
    state = observe(CollectorState(Rules.of(settings)), exposure(4, request="r"), feedback(4, request="r"))
    offsets = {"driftline.exposures:0": 1, "driftline.experiments:0": 1}
    for number in (1, 2):
        save(Saved(state, offsets), Share(number, 2).path(settings))
    with pytest.raises(StateError, match=r"abtest-2-of-2.npz has partition 0, which collector 2/2 does not read"):
        load_state(settings)
    with pytest.raises(SettingsError, match="its users would count twice"):
        continued(Share(2, 2), settings)
    assert continued(Share(1, 2), settings).offsets == offsets


@pytest.mark.parametrize("name", ["abtest-1-of-1.npz", "abtest-3-of-2.npz", "abtest-0-of-0.npz", "abtest-01-of-02.npz"])
def test_a_file_that_no_collector_writes_is_no_part(tmp_path: Path, name: str) -> None:
    settings = settings_in(tmp_path)
    keep(settings, Share(), CollectorState(Rules.of(settings)))
    (settings.state / name).write_bytes(b"")
    assert saved_parts(settings) == [Share().path(settings)]


class Collectors:
    """Collectors as processes, in a folder that they share."""

    def __init__(self, supervisor: Supervisor, settings: Settings) -> None:
        self.settings, self._supervisor, self._began = settings, supervisor, 0
        settings.state.parent.mkdir()
        self.file = settings.state.parent / "settings.yaml"
        dump(settings, self.file)

    def start(self, share: Share) -> Child:
        self._began += 1
        name = f"{self.file.parent.name}-{share.number}-{self._began}"
        child = self._supervisor.start_worker(name, ["experiment", "collect", "--share", str(share)], self.file)
        self._supervisor.wait_ready([child])
        return child

    def kill(self, child: Child) -> None:
        child.process.kill()
        child.process.wait()
        self._supervisor.children.remove(child)

    def saved(self, share: Share, ends: dict[str, int]) -> bool:
        """Whether what a share has saved has all of its partitions."""
        path = share.path(self.settings)
        return path.exists() and load(path, Rules.of(self.settings)).offsets == {
            place: end for place, end in ends.items() if share.has(int(place.rpartition(":")[2]))
        }


@contextmanager
def supervised(directory: Path) -> Iterator[Callable[[str, KafkaSettings], Collectors]]:
    with Supervisor(directory / "logs", SystemClock()) as supervisor:
        yield lambda name, kafka: Collectors(supervisor, settings_in(directory / name, kafka=kafka))


def test_killed_between_they_come_to_what_one_comes_to_and_a_second_of_a_share_ends(
    tmp_path: Path, embedded: KafkaSettings
) -> None:
    kafka = embedded
    sender, ends, random = Sender(kafka), dict[str, int](), np.random.default_rng(5)

    def send(first: int) -> None:
        for number in range(first, first + HALF * USERS):
            user, at_ms = int(random.integers(1, USERS)), START + number * MINUTE_MS
            arm = ("control", "treatment")[user % 2]
            shown = exposure(user, arm, at_ms, f"r{number}")
            events = [(bus.EXPOSURES, shown), (bus.FEEDBACK, feedback(user, at_ms + 1, f"r{number}"))]
            if number % 17 == 0:
                late = exposure(user, arm, max(at_ms - 3 * HOUR_MS, START), f"late{number}")
                events += [(bus.EXPOSURES, late), (bus.EXPOSURES, shown)]
            for topic, event in events:
                sender.send(topic, event.SerializeToString(), user, at_ms + MINUTE_MS)
                place = f"{kafka.topic(topic)}:{user % kafka.partitions}"
                ends[place] = ends.get(place, 0) + 1
        sender.send(bus.FEEDBACK, b"no feedback", first, START + HOUR_MS)
        place = f"{kafka.topic(bus.FEEDBACK)}:{first % kafka.partitions}"
        ends[place] = ends.get(place, 0) + 1
        sender.flush()

    shares = [Share(1, 2), Share(2, 2)]
    with supervised(tmp_path) as collectors:
        alone, shared = collectors("alone", kafka), collectors("shared", kafka)
        send(0)
        running = {share: shared.start(share) for share in shares}
        alone.start(Share())
        until(lambda: all(shared.saved(share, ends) for share in shares))
        shared.kill(running[shares[1]])
        second = driftline("experiment", "collect", "--share", "1/2", "-s", str(shared.file))
        assert second.returncode == 2
        assert f"Another collector keeps {shares[0].path(shared.settings)}." in second.stderr
        send(HALF * USERS)
        again = shared.start(shares[1])
        until(lambda: all(shared.saved(share, ends) for share in shares) and alone.saved(Share(), ends))
        assert get(again.facts["metrics_port"], "/readyz")[0] == 200
    one, both = folded(load_state(alone.settings)), folded(load_state(shared.settings))
    assert one.users, one.counts
    for name in ("users", "arms", "recalls", "counts", "spans", "newest_ms"):
        assert getattr(one, name) == getattr(both, name), name
    assert analyse(one) == analyse(both)
    assert one.counts[Unused.LATE_EXPOSURE] > 0
    sender.close()
