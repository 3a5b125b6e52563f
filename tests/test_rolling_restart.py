"""Every process restarted in turn under load, settings, certificates and tokens changed on the way, and the experiment
paused, resumed and ramped: no call fails, nobody changes arm, and it comes to what an undisturbed run comes to.
"""

import hashlib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from abtest.analyse.analysis import analyse
from abtest.assignment.assign import assign
from abtest.collect.parts import Share
from abtest.collect.rules import Rules
from abtest.collect.state import CollectorState, folded
from abtest.collect.store import load as load_state
from contracts.config.experiment import Arm, Experiment
from contracts.config.settings import KafkaSettings, Settings, StreamSettings, TlsSettings, dump, load
from contracts.kafka import bus
from contracts.kafka.consumers import consumer, read_to_end
from contracts.messages.events import SCHEMA_VERSION
from contracts.messages.experiments import Course
from contracts.runtime.clock import DAY_MS, SystemClock
from contracts.snapshots import snapshot
from contracts.wire.events_pb2 import Example, Exposure, Feedback
from driftline.inspect.metrics import read_metrics
from driftline.processes import broker
from driftline.processes.server import Server
from driftline.processes.supervisor import Child, Supervisor
from feature_repo.store import apply
from serving.calls import ClientTls
from serving.client import RecallClient, RecallError
from tests.conftest import own_topics
from tests.serving.replica_cases import prepared
from tests.serving.replicas import LONG_S, Authority, driftline, until
from tests.serving.serving_cases import make_snapshot
from tests.stream.stream_cases import Sender, read_all

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1500)]

START = 20 * DAY_MS
WEEK = 7 * DAY_MS
REQUESTS, USERS, K = 2000, 150, 3
LATENESS = 8 * DAY_MS  # a week passes in a minute: what two replicas send at one moment is hours apart
AT_REST_S, BATCH = 200.0, 8
BEFORE = START - 15 * DAY_MS  # when what keeps replicas busy between the week's requests seems to be asked
PAUSE, RESUME, RAMP = START + 2 * DAY_MS, START + 3 * DAY_MS, START + 5 * DAY_MS
EXPERIMENT = Experiment(
    name="week",
    salt="s",
    start_ms=START,
    end_ms=START + WEEK,
    arms={"a": Arm(weight=1, model="two_tower"), "b": Arm(weight=1, model="two_tower")},
    control="a",
)
CHANGES = (("pause", PAUSE), ("resume", RESUME), ("ramp 0.5", RAMP))


def chance(*of: object) -> float:
    """The same number in [0, 1) for the same things."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:6], "big") / (1 << 48)


@dataclass
class System:
    """All processes of a deployment, and where they are."""

    folder: Path
    kafka: KafkaSettings
    supervisor: Supervisor
    authority: Authority
    children: dict[str, Child] = field(default_factory=dict)
    starts: int = 0
    second: bool = False  # whether a second token is accepted

    def __post_init__(self) -> None:
        self.token = self.folder / "token"
        self.token.write_text("first\n")
        self.ports = {name: free_port() for name in ("replica-1", "replica-2")}
        own = self.authority.sign("server")
        self.settings = prepared(
            self.folder,
            self.kafka,
            tls=TlsSettings(certificate=own.certificate, key=own.key),
            token_file=self.token,
            pointer_poll_ms=50,
        ).model_copy(update={"experiment": EXPERIMENT, "stream": StreamSettings(allowed_lateness_ms=LATENESS)})
        self.written = self.folder / "written"
        apply(self.written)
        made = make_snapshot()
        snapshot.write(self.settings.snapshots, made)
        snapshot.publish(self.settings.snapshots, "two_tower", made.manifest.version)
        for name in self.commands:
            dump(self.settings_of(name), self.path(name))

    @property
    def commands(self) -> dict[str, list[str]]:
        workers = {"stream": ["stream"], "collector": ["experiment", "collect"], "archive": ["archive"]}
        return {**workers, "trainer": ["trainer"], **{name: ["serve"] for name in self.ports}}

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.yaml"

    def settings_of(self, name: str, **serving: Any) -> Settings:
        """What replicas answer from never changes: answers depend on no moment at which anything was written."""
        changes: dict[str, Any] = {}
        if name == "trainer":
            small = {"dim": 8, "window": 6, "batch_size": BATCH, "learning_rate": 0.01}
            trainer = {"models": ["two_tower"], "model": small, "gate": {"judge": "recall"}}
            of = self.settings.model_dump(mode="json") | {"trainer": trainer, "experiment": EXPERIMENT.model_dump()}
            return Settings.model_validate(of).model_copy(update={"snapshots": self.folder / "learned"})
        if name in ("stream", "archive"):
            changes["feature_repo"] = self.written
        if name in self.ports:
            changes["serving"] = self.settings.serving.model_copy(update={"port": self.ports[name], **serving})
        return self.settings.model_copy(update=changes)

    def start(self, *names: str) -> None:
        for name in names:
            self.starts += 1
            self.children[name] = self.supervisor.start_worker(
                f"{name}-{self.starts}", self.commands[name], self.path(name)
            )
        self.supervisor.wait_ready([self.children[name] for name in names])

    def stop(self, name: str) -> int:
        child = self.children.pop(name)
        self.supervisor.stop(child)
        return int(child.process.returncode)

    def restart(self, name: str) -> None:
        assert self.stop(name) == 0
        self.start(name)

    def client(self, token: str) -> RecallClient:
        addresses = [f"127.0.0.1:{port}" for port in self.ports.values()]
        return RecallClient(addresses, deadline_s=LONG_S, tls=ClientTls(self.authority.own.certificate), token=token)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rolling(system: System) -> Iterator[Callable[[], None]]:
    """What is done while the week goes on, one after the other."""
    yield lambda: system.restart("stream")
    yield lambda: rotate(system)
    for number, name in enumerate(system.ports):
        yield lambda name=name, number=number: dump(  # type: ignore[misc]
            system.settings_of(name, max_k=20 + number), system.path(name)
        )
        yield lambda name=name: system.restart(name)  # type: ignore[misc]
    yield lambda: renew(system)
    yield lambda: system.restart("collector")
    yield lambda: reload(system)
    yield lambda: system.restart("trainer")
    yield lambda: system.restart("archive")
    yield lambda: system.restart("stream")
    for name in system.ports:
        yield lambda name=name: system.restart(name)  # type: ignore[misc]


def rotate(system: System) -> None:
    """A second token beside the first; callers use it once all replicas accept it."""
    system.token.write_text("first\nsecond\n")

    def accepted(port: int) -> bool:
        tls = ClientTls(system.authority.own.certificate)
        with RecallClient([f"127.0.0.1:{port}"], deadline_s=LONG_S, tls=tls, token="second") as client:  # noqa: S106
            return not any(isinstance(status, RecallError) for status in client.status().values())

    until(lambda: all(map(accepted, system.ports.values())))
    system.second = True


def renew(system: System) -> None:
    """Another certificate by the same authority."""
    tls, renewed = system.settings.serving.tls, system.authority.sign("renewed")
    assert tls is not None
    tls.key.write_bytes(renewed.key.read_bytes())
    tls.certificate.write_bytes(renewed.certificate.read_bytes())


def reload(system: System) -> None:
    """Another owner in the experiment of both replicas, without a restart."""
    for name in system.ports:
        child, path = system.children[name], system.path(name)
        settings = load(path)
        owned = settings.experiment.model_copy(update={"owner": "another"})
        dump(settings.model_copy(update={"experiment": owned}), path)
        child.process.send_signal(1)
        until(lambda child=child: "settings reloaded" in child.log.read_text())  # type: ignore[misc]


@dataclass
class Outcome:
    """What came of a week."""

    calls: int
    failed: list[str]
    exposures: dict[str, tuple[int, int, str, tuple[int, ...]]]
    examples: list[tuple[Any, ...]]
    users: dict[int, Any]
    snapshots: int
    said: str


def change(system: System) -> None:
    """What operators do, while there is time until it holds."""
    for words, at in CHANGES:
        done = driftline(
            "experiment", *words.split(), "-s", str(system.path("collector")), "--at", str(at), "--simulated"
        )
        assert done.returncode == 0, done.stderr


def response(number: int, user: int, item: int, shown_ms: int) -> Feedback:
    """What a user does with an item of the request of this number."""
    return Feedback(
        schema_version=SCHEMA_VERSION,
        event_id=f"f{number}-{item}",
        request_id=f"r{number}",
        user_id=user,
        item_id=item,
        time_ms=shown_ms + 1000 * item,
        play_time_ms=int(60_000 * chance("play", user, item, number)),
        effective_view=chance(user, item, number) < 0.4,
        follow=False,
    )


def week(system: System, *, disturbed: bool) -> Outcome:
    names = [*system.commands]
    sender = Sender(system.kafka)
    sender.items(*range(1, 7))
    system.start(*names)
    failed: list[str] = []
    actions = rolling(system) if disturbed else iter(())
    step = REQUESTS // 18
    running: Future[None] | None = None
    calls = positives = 0
    with ThreadPoolExecutor(1) as beside, system.client("first") as first, system.client("second") as second:

        def ask(user: int, time_ms: int, request_id: str) -> tuple[int, ...]:
            nonlocal calls
            client = second if system.second else first
            calls += 1
            try:
                answer = client.recall(user, K, time_ms=time_ms, request_id=request_id, simulated=True)
            except RecallError as error:
                failed.append(str(error))
                return ()
            return tuple(item.item_id for item in answer.items)

        for number in range(REQUESTS):
            if number == REQUESTS // 20:
                change(system)
            if number % step == 0:
                # The week waits for what is done beside it, and replicas are kept busy.
                while running is not None and not wait([running], timeout=0.01).done:
                    ask(10_000 + calls % 50, BEFORE, f"filler-{calls}")
                if running is not None:
                    running.result()
                action = next(actions, None)
                running = beside.submit(action) if action else None
            time_ms = START + number * (WEEK // REQUESTS)
            user = 1 + number % USERS
            for item in ask(user, time_ms, f"r{number}"):
                feedback = response(number, user, item, time_ms)
                positives += feedback.effective_view
                sender.send(bus.FEEDBACK, feedback.SerializeToString(), user, feedback.time_ms)
        if running is not None:
            running.result(LONG_S)
        assert next(actions, None) is None, "everything was restarted under load"
        # Whoever was started by the thread beside ends with it.
        sender.close()
        trained = int(system.children["trainer"].facts["metrics_port"])
        until(lambda: len(read_all(system.kafka, bus.EXAMPLES)) >= positives, AT_REST_S)
        until(lambda: read_metrics([trained]).total("trainer_tested_examples") >= positives - BATCH, AT_REST_S)
        until(lambda: caught_up(system), AT_REST_S)
        assert {name: system.stop(name) for name in names} == dict.fromkeys(names, 0)
    return outcome(system, calls, failed)


def caught_up(system: System) -> bool:
    """Whether what the collector has saved includes all that its topics hold."""
    saved = load_state(Share().path(system.settings), Rules.of(system.settings))
    where = bus.partitions_of(system.kafka, [bus.EXPOSURES, bus.FEEDBACK])
    client = consumer(system.kafka, [], None)
    try:
        ends = client.end_offsets(where)
    finally:
        client.close()
    return all(saved.offsets.get(f"{at.topic}:{at.partition}", 0) == end for at, end in ends.items())


def outcome(system: System, calls: int, failed: list[str]) -> Outcome:
    exposures = {
        each.request_id: (each.user_id, each.time_ms, each.arm, tuple(item.item_id for item in each.items))
        for each in map(Exposure.FromString, read_all(system.kafka, bus.EXPOSURES))
        if not each.request_id.startswith("filler")
    }
    course = Course(EXPERIMENT)
    for record in read_to_end(system.kafka, bus.EXPERIMENTS, 0, 0):
        course.take(record)
    for user, time_ms, arm, _ in exposures.values():
        assert arm == (assign(course.experiment, user, time_ms).arm or ""), (user, time_ms)
    state = folded(load_state(Share().path(system.settings), Rules.of(system.settings)).state)
    report = analyse(state)
    (said,) = [check.said for check in report.checks if check.name == "changes"]
    return Outcome(
        calls,
        failed,
        exposures,
        sorted(map(told, map(Example.FromString, read_all(system.kafka, bus.EXAMPLES)))),
        people(state),
        sum(path.is_dir() for path in (system.folder / "learned" / "two_tower").glob("v*")),
        said,
    )


def told(example: Example) -> tuple[Any, ...]:
    """An example without the wall time at which its feedback came."""
    example.ClearField("sent_at_ms")
    return example.user_id, example.time_ms, example.item_id, example.SerializeToString(deterministic=True)


def people(state: CollectorState) -> dict[int, Any]:
    """By user their arm and sums, without what was measured with a watch."""
    without = {"answer_us": 0, "timed": 0, "age_ms": 0}
    return {
        user_id: (sorted(user.arms), {day: sums._replace(**without) for day, sums in sorted(user.days.items())})
        for user_id, user in sorted(state.users.items())
    }


def test_every_process_is_restarted_under_load_and_nothing_comes_of_it(tmp_path: Path, apache_server: Server) -> None:
    outcomes = []
    for disturbed in (False, True):
        folder = tmp_path / ("disturbed" if disturbed else "calm")
        folder.mkdir()
        kafka = own_topics(apache_server)
        broker.prepare(kafka)
        with Supervisor(folder / "logs", SystemClock()) as supervisor:
            outcomes.append(week(System(folder, kafka, supervisor, Authority(folder / "ca")), disturbed=disturbed))
    calm, rolled = outcomes
    print(f"{rolled.calls} calls, {len(rolled.examples)} examples, {len(rolled.users)} users. {rolled.said}")  # noqa: T201
    assert calm.failed == rolled.failed == []
    assert rolled.calls > calm.calls == REQUESTS
    assert len(rolled.exposures) == REQUESTS
    assert rolled.exposures == calm.exposures
    assert rolled.examples == calm.examples
    assert all(len(arms) <= 1 for arms, _ in rolled.users.values())
    assert rolled.users == calm.users
    # Not which weights: two partitions that are read as they grow are merged by who is silent, so by the wall clock.
    assert rolled.snapshots > 5
    assert rolled.said == calm.said
    assert "paused from" in rolled.said
    assert "ramped to 50.0 %" in rolled.said
