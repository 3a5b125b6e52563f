"""From an event to an answer that knows of it: a real broker, trainer and replica, and a sender that keeps its pace.

    python -m benchmarks.trainer.latency [--rate 500] [--seconds 120] [--publish-every 4] [--deltas-every S]

The sender notes when it sent each example, and where in the log it lies. The replica is asked all the time, a user of
each arm in turn, which version answers; its manifest says up to which offsets it has learned. So it is known of every
example, not of a sample, when it first answered a request (`tried_…`), and when it answered all that are on no trial
(`served_…`, by the replica's Status): in item vectors by any version, in the user tower by a full snapshot. Figures are
too large by up to one round of asking (`asked_every_s`). Beside that, users who are drawn at random ask for `--recalls`
pages a second: trials of snapshots end by what was shown.

The sender never waits for the trainer, so one that is too slow falls behind, and its figures say so: `lag` counts
examples that are sent and not yet tested. It goes on at its pace after the measured time until all that was sent in it
is served. Users are in the arms of an experiment, so both models foresee every example and each learns from its own
half; with --outside they are in none, and both learn from everything.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from abtest.assignment.assign import assign
from benchmarks.crowd import Crowd, catalogue, dated, examples
from benchmarks.trainer.served import Sender, Visitors, Watch, quantiles, waits
from contracts.config.settings import Arm, Experiment, GateSettings, KafkaSettings, Settings, TrainerSettings, dump
from contracts.kafka import bus
from contracts.runtime.clock import SystemClock
from driftline.inspect.metrics import Scrape, read_metrics
from driftline.processes import broker
from driftline.processes import kafka as apache_kafka
from driftline.processes.supervisor import Child, Supervisor
from evaluation import costs
from feature_repo.store import UserRow, UserSequences, apply
from trainer.engine import choose_device

BEAT_S = 1.0
READY_S, DRAIN_S = 300.0, 120.0  # for the first snapshots, and for the last examples to be served
SHOWN = (
    "tried_vectors_p99_s",
    "tried_tower_p99_s",
    "served_vectors_p50_s",
    "served_vectors_p99_s",
    "served_tower_p50_s",
    "served_tower_p99_s",
)


def settings_for(kafka: KafkaSettings, directory: Path, options: argparse.Namespace) -> Settings:
    """The defaults, but for when to publish, the gate's anchor and the device."""
    arms = {"control": Arm(weight=1, model="two_tower"), "treatment": Arm(weight=1, model="t2diff")}
    return Settings(
        kafka=kafka,
        feature_repo=directory / "features",
        snapshots=directory / "snapshots",
        state=directory / "state",
        trainer=TrainerSettings(
            publish_every_s=options.publish_every,
            deltas_every_s=options.deltas_every,
            checkpoint_every_examples=options.checkpoint_every,
            gate=GateSettings(judge=options.judge, anchor=options.anchor, enabled=not options.no_gate),
            device=options.device,
            threads=options.threads,
        ),
        experiment=Experiment(name="e", salt="s", start_ms=0, end_ms=2**42, arms=arms, control="control"),
    )


def announce(kafka: KafkaSettings, crowd: Crowd, now_ms: int) -> None:
    """Put the catalogue on its topic."""
    producer = bus.producer(kafka)
    for item in catalogue(crowd):
        key, topic = bus.key_of(item.item_id), kafka.topic(bus.ITEMS)
        producer.send(topic, item.SerializeToString(), key, partition=0, timestamp_ms=now_ms)
    producer.flush()
    producer.close()


def visitors(settings: Settings, crowd: Crowd, now_ms: int) -> dict[str, int]:
    """A user of each arm's model, whose features are in the store."""
    users: dict[str, int] = {}
    rows: list[UserRow] = []
    for user_id, example in enumerate(examples(crowd), crowd.users + 1):
        arm = assign(settings.experiment, user_id, now_ms).arm
        model = settings.experiment.arms[arm or settings.experiment.control].model
        if model not in users:
            users[model] = user_id
            history = dated(example, now_ms).history
            row = UserRow.of(
                user_id, history, session_start=0, last_event_ms=now_ms, feedback_offset=0, written_us=now_ms * 1000
            )
            rows.append(row)
        if len(users) == len({arm.model for arm in settings.experiment.arms.values()}):
            break
    UserSequences(settings.feature_repo).write(rows)
    return users


@dataclass(frozen=True)
class Reading:
    """Where things stood at a moment."""

    at_s: float
    sent: dict[int, int]  # by partition
    metrics: Scrape  # of the trainer
    cpu_s: dict[str, float]  # by process

    @property
    def lag(self) -> int:
        """Examples sent and not yet tested."""
        return sum(self.sent.values()) - int(self.metrics.total("trainer_tested_examples"))


class Run:
    """One run, from the first example to the last answer."""

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        sender: Sender,
        watch: Watch,
        visitors: Visitors,
        trainer: Child,
    ) -> None:
        self._clock = SystemClock()
        self._models = settings.trainer.models
        self._supervisor, self._sender, self._watch, self._visitors = supervisor, sender, watch, visitors
        self._port = int(str(trainer.facts["metrics_port"]))
        self._threads: list[Future[None]] = []
        self._pause = threading.Event()

    def measure(self, warm_up_s: float, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
        """Warm up, measure, wait until what was sent is served, and tell."""
        with ThreadPoolExecutor(3) as pool, ExitStack() as stack:
            stack.callback(self._sender.stop.set)
            stack.callback(self._watch.stop.set)
            stack.callback(self._visitors.stop.set)
            self._threads = [pool.submit(part.run) for part in (self._sender, self._watch)]
            say("warming up")
            begun_s = self._clock.elapsed_s()
            self._until(lambda: all(self._watch.live[model] for model in self._models), READY_S)
            self._threads.append(pool.submit(self._visitors.run))
            self._until(lambda: self._clock.elapsed_s() - begun_s >= warm_up_s, warm_up_s + READY_S)
            first = self._read()
            say(f"measuring; {first.lag:,} examples behind")
            readings = [first]
            while self._clock.elapsed_s() - first.at_s < seconds:
                self._beat()
                readings.append(self._read())
            last = readings[-1]
            say(f"waiting for what was sent to be served; {last.lag:,} examples behind")
            self._until(lambda: all(self._watch.includes(model, last.sent) for model in self._models), DRAIN_S)
        for thread in self._threads:
            thread.result()
        return self._told(readings)

    def _told(self, readings: Sequence[Reading]) -> dict[str, Any]:
        first, last = readings[0], readings[-1]
        seconds = last.at_s - first.at_s
        models: dict[str, dict[str, Any]] = {}
        for model in self._models:
            sent, figures = self._sender.log(model), models.setdefault(model, {})
            for kind, seen in (("tried", self._watch.seen), ("served", self._watch.live)):
                for what in ("vectors", "tower"):
                    served = [(live.at_s, getattr(live, what)) for live in seen[model]]
                    waited_s = waits(sent, served, first.at_s, last.at_s)
                    figures |= {f"{kind}_{what}_{name}_s": value for name, value in quantiles(waited_s).items()}
                    figures[f"never_{kind}_{what}"] = int(np.isinf(waited_s).sum())
            figures["examples"] = int(waited_s.size)
            figures["went_live"] = {
                kind: int(self._grown(first, last, "trainer_snapshots_published_total", model=model, kind=kind))
                for kind in ("full", "delta")
            }
            figures["held"] = int(self._grown(first, last, "trainer_snapshots_rejected_total", model=model))
            figures["held_in_warm_up"] = int(first.metrics.total("trainer_snapshots_rejected_total", model=model))
            figures["recall@100"] = round(
                last.metrics.total("trainer_progressive_recall", model=model, k="100", scope="recent"), 3
            )
            figures["test_and_learn_share"] = round(
                self._grown(first, last, "trainer_train_seconds_sum", model=model) / seconds, 3
            )
        return worst(models) | {
            "sent_per_s": round((sum(last.sent.values()) - sum(first.sent.values())) / seconds, 1),
            "tested_per_s": round(self._grown(first, last, "trainer_tested_examples") / seconds, 1),
            "lag_at_start": first.lag,
            "lag_max": max(reading.lag for reading in readings),
            "lag_at_end": last.lag,
            "seconds": round(seconds, 1),
            "publications": sum(sum(figures["went_live"].values()) for figures in models.values()),
            "gate_holds": sum(figures["held"] + figures["held_in_warm_up"] for figures in models.values()),
            "checkpoint_share": round(self._grown(first, last, "trainer_checkpoint_seconds_sum") / seconds, 3),
            "cores": {name: round((last.cpu_s[name] - was) / seconds, 3) for name, was in first.cpu_s.items()},
            "asked_every_s": {
                "p50": round(float(np.quantile(self._watch.gaps_s, 0.5)), 3),
                "p99": round(float(np.quantile(self._watch.gaps_s, 0.99)), 3),
            },
            "models": models,
            "holds": holds(readings),
        }

    def _grown(self, first: Reading, last: Reading, name: str, **labels: str) -> float:
        return last.metrics.total(name, **labels) - first.metrics.total(name, **labels)

    def _read(self) -> Reading:
        sent = dict(self._sender.counts)
        cpu_s = {"sender": sum(psutil.Process().cpu_times()[:2])}
        for child in self._supervisor.children:
            cpu_s[child.name] = sum(psutil.Process(child.process.pid).cpu_times()[:2])
        return Reading(self._clock.elapsed_s(), sent, read_metrics([self._port]), cpu_s)

    def _until(self, done: Callable[[], bool], limit_s: float) -> None:
        """Wait, but no longer than `limit_s`; what has not come by then shows in the figures, or stops the run."""
        deadline = self._clock.elapsed_s() + limit_s
        while not done() and self._clock.elapsed_s() < deadline:
            self._beat()

    def _beat(self) -> None:
        self._supervisor.check()
        for thread in self._threads:
            if thread.done():
                thread.result()
        self._pause.wait(BEAT_S)


def holds(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """When the gate held what, and by what it did: the estimates, with their bounds, of the difference in recall.

    Of several holds of a model between two readings the last is told.
    """
    out = []
    for before, after in pairwise(readings):
        were, are = (each.metrics.values("trainer_snapshots_rejected_total", "model") for each in (before, after))
        for model in (name for name, count in are.items() if count > were.get(name, 0)):
            hold: dict[str, Any] = {"second": round(after.at_s - readings[0].at_s), "model": model}
            for on in ("fresh", "anchor"):
                comparison = (
                    after.metrics.total("trainer_gate_difference", model=model, on=on, what=what)
                    for what in ("difference", "low", "high")
                )
                hold[on] = [round(value, 4) for value in comparison]
            out.append(hold)
    return out


def worst(models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Of each quantile that of the slower model; None where one was not served.

    >>> worst({"a": dict.fromkeys(SHOWN, 1.0), "b": dict.fromkeys(SHOWN, 2.0)})["served_tower_p99_s"]
    2.0
    """
    values = {name: [figures[name] for figures in models.values()] for name in SHOWN}
    return {name: None if None in by_model else max(by_model) for name, by_model in values.items()}


def run(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Start everything, measure, and stop everything."""
    clock = SystemClock()
    crowd = Crowd(users=options.users, items=options.items)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latency-bench-")))
        supervisor = stack.enter_context(Supervisor(scratch / "logs", clock))
        if options.broker == "embedded":
            kafka = broker.start_embedded(supervisor, clock)
        elif options.broker == "apache":
            server = stack.enter_context(apache_kafka.start(apache_kafka.default_home(), scratch / "kafka"))
            kafka = broker.outside(server.address)
        else:
            kafka = broker.outside(options.broker)
            stack.callback(broker.remove, kafka)
        settings = settings_for(kafka, scratch, options)
        broker.prepare(kafka)
        apply(settings.feature_repo)
        announce(kafka, crowd, clock.now_ms())
        users = visitors(settings, crowd, clock.now_ms())
        dump(settings, scratch / "settings.yaml")
        trainer = supervisor.start_worker("trainer", ["trainer"], scratch / "settings.yaml")
        replica = supervisor.start_worker("replica", ["serve"], scratch / "settings.yaml")
        supervisor.wait_ready([trainer, replica])
        sender = Sender(kafka, crowd, options.rate, None if options.outside else settings.experiment, clock)
        watch = Watch(f"127.0.0.1:{replica.facts['port']}", users, settings.snapshots, clock)
        crowd_asking = Visitors(f"127.0.0.1:{replica.facts['port']}", crowd, options.recalls)
        whole = Run(settings, supervisor, sender, watch, crowd_asking, trainer)
        figures = whole.measure(options.warm_up, options.seconds, say)
        model = settings.trainer.model
    return {
        **{name: figures.pop(name) for name in SHOWN},
        "rate": options.rate,
        # What is behind at the end is at most what comes between two publications.
        "kept_up": figures["lag_at_end"] <= options.rate * (options.deltas_every or options.publish_every),
        **figures,
        "broker": options.broker,
        "recalls": options.recalls,
        "judge": options.judge,
        "in_an_experiment": not options.outside,
        "publish_every_s": options.publish_every,
        "deltas_every_s": options.deltas_every,
        "shape": {
            "items": crowd.items, "users": crowd.users, "dim": model.dim, "window": model.window,
            "batch": model.batch_size, "softmax": settings.trainer.softmax, "anchor": options.anchor,
            "gate": not options.no_gate, "checkpoint_every_examples": options.checkpoint_every,
        },
        "device": costs.device_name(choose_device(options.device)),
        "threads": options.threads,
        "load_average": round(os.getloadavg()[0], 2),
        "versions": costs.versions(),
    }  # fmt: skip


def options(parser: argparse.ArgumentParser) -> None:
    """What can be said about this part."""
    parser.add_argument("--rate", type=int, default=500, help="examples a second")
    parser.add_argument("--seconds", type=float, default=120, help="to measure")
    parser.add_argument("--warm-up", type=float, default=60, help="seconds before that at least")
    parser.add_argument("--publish-every", type=float, default=4, help="seconds between snapshots")
    parser.add_argument("--deltas-every", type=float, help="seconds between deltas; without it there are none")
    parser.add_argument("--recalls", type=int, default=400, help="pages that users ask for a second")
    parser.add_argument("--judge", choices=["canary", "recall"], default="canary", help="`trainer.gate.judge`")
    parser.add_argument("--anchor", type=int, default=1000, help="`trainer.gate.anchor`, of the judge by recall")
    parser.add_argument("--no-gate", action="store_true", help="let everything go live: what the path itself takes")
    parser.add_argument("--checkpoint-every", type=int, default=2000, help="`trainer.checkpoint_every_examples`")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--outside", action="store_true", help="of any experiment: each model learns from everything")
    parser.add_argument("--broker", default="embedded", help="`embedded`, `apache`, or HOST:PORT of a running one")
    parser.add_argument("--threads", type=int, default=1, help="of the trainer")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    parser.add_argument("--out", type=Path, help="where to keep the JSON object, which is printed as well")
    parsed = parser.parse_args(arguments)
    figures = run(parsed, lambda what: print(f"… {what}", file=sys.stderr, flush=True))  # noqa: T201
    text = json.dumps(figures, indent=1)
    sys.stdout.write(text + "\n")
    if parsed.out:
        parsed.out.parent.mkdir(parents=True, exist_ok=True)
        parsed.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
