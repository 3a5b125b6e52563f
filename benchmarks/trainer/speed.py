"""Examples learned per second, beside RecTools' SASRec (benchmarks/trainer/peer.py), in one run, in turns.

    python -m benchmarks.trainer.speed [--rounds 3] [--windows 32 50]

An example is a window: one user's behaviours and the item that followed. Both sides get the same windows, full ones, in
the same batches, at the same width, depth and threads. Ours are timed from the messages, as they come out of Kafka
(`encode`), to the optimizer's step: `learn` alone, and `test and learn`, which is what the trainer always does. The
peer is timed as `trainer_peer` says.

A window is one target to a model that learns at its end (the control; T2Diff with `learn_at: last`, the default) and as
many as it has behaviours to one that learns at every place (the peer; our SASRec; T2Diff with `learn_at: every`). On a
stream each behaviour comes as an example of its own, so windows are what has to be kept up with; targets per second
are told beside them.

Everything computes with one thread in turn, so on the CPU figures are by CPU time: work of others on the machine then
slows them little, where it would swamp the wall clock. On a GPU they are by wall time.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from benchmarks.trainer import peer as trainer_peer
from benchmarks.trainer.peer import PEER, Peer
from benchmarks.trainer.windows import Shape, Stopwatch, windows
from contracts.config.settings import ModelSettings, TrainerSettings
from contracts.runtime.clock import MINUTE_MS
from contracts.wire.events_pb2 import Example, History
from evaluation import costs
from trainer.data.batches import encode
from trainer.data.catalogue import Catalogue
from trainer.engine import choose_device
from trainer.learn.learner import Learner

OURS = {
    "two_tower": ("two_tower", "last"),
    "t2diff": ("t2diff", "last"),
    "t2diff at every place": ("t2diff", "every"),
    "sasrec": ("sasrec", "every"),
}
WAYS = ("learn", "test and learn")
PEERS = (("softmax", "fit"), ("softmax", "step"), ("BCE", "fit"))  # loss and way

Round = Callable[[], dict[str, float]]


def examples(shape: Shape) -> list[Example]:
    """The windows as the stream puts them out: all views effective, a minute apart."""
    now_ms = (shape.window + 1) * MINUTE_MS
    times_ms = [place * MINUTE_MS for place in range(shape.window)]
    return [
        Example(
            user_id=user,
            item_id=row[-1],
            time_ms=now_ms,
            history=History(item_ids=row[:-1], times_ms=times_ms, effective_views=[True] * shape.window),
        )
        for user, row in enumerate(windows(shape).tolist(), 1)
    ]


def ours(shape: Shape, device: torch.device, seconds: float, batches: int) -> Iterator[tuple[str, str, int, Round]]:
    """Name, way, targets a window and how to run a round of each of our models."""
    catalogue = Catalogue()
    for item_id in range(1, shape.items + 1):
        catalogue.put(item_id, [1 + item_id % 40])
    loaded = examples(shape)
    parts = [loaded[at : at + shape.batch] for at in range(0, len(loaded), shape.batch)]
    for name, (model, places) in OURS.items():
        settings = ModelSettings(
            dim=shape.dim, window=shape.window, depth=shape.depth, batch_size=shape.batch,
            learn_at="every" if places == "every" else "last",
        )  # fmt: skip
        learner = Learner(model, TrainerSettings(model=settings), shape.seed, device)
        learner.follow(catalogue)

        def run(learner: Learner, *, tests: bool) -> dict[str, float]:
            watch = Stopwatch(seconds, batches, torch.cuda.synchronize if device.type == "cuda" else lambda: None)
            while True:
                batch = encode(parts[(watch.seen + 1) % len(parts)], catalogue, shape.window)
                if tests:
                    learner.evaluate(batch)
                learner.learn(batch)
                if watch.enough():
                    return watch.figures(shape)

        targets = shape.window if places == "every" else 1
        for way in WAYS:
            yield name, way, targets, lambda learner=learner, way=way: run(learner, tests=way != "learn")  # type: ignore[misc]


def theirs(shape: Shape, peer: Peer) -> Iterator[tuple[str, str, int, Round]]:
    """The same of the peer's."""
    for loss, way in PEERS:
        yield f"rectools sasrec, {loss}", way, shape.window, lambda loss=loss, way=way: peer.round(loss, way)  # type: ignore[misc]


def measure(shape: Shape, arguments: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """All of one window, in turns; the median round of each."""
    device = choose_device(arguments.device)
    timing = (arguments.seconds, arguments.batches)
    with (
        trainer_peer.start(shape, *timing, arguments.threads, arguments.device)
        if PEER.exists()
        else nullcontext() as peer
    ):
        contestants = [*ours(shape, device, *timing), *(theirs(shape, peer) if peer else ())]
        rounds: list[list[dict[str, float]]] = [[] for _ in contestants]
        for count in range(arguments.rounds):
            for turns, (name, way, _, once) in zip(rounds, contestants, strict=True):
                say(f"window {shape.window}, round {count + 1}: {name}, {way}")
                turns.append(once())
        about = peer.about if peer else None
    by = "windows_per_s" if device.type == "cuda" else "windows_per_cpu_s"
    figures: dict[str, Any] = {"peer": about, "by": by, "rates": {}}
    for turns, (name, way, targets, _) in zip(rounds, contestants, strict=True):
        rate = statistics.median(each[by] for each in turns)
        figures["rates"].setdefault(name, {})[way] = {
            "windows_per_s": round(rate, 1),
            "targets_per_s": round(targets * rate, 1),
            "all_windows_per_s": [round(each[by], 1) for each in turns],
            "by_wall": [round(each["windows_per_s"], 1) for each in turns],
        }
    figures["ratios"] = ratios(figures["rates"]) if about else None
    return figures


def ratios(rates: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Our windows (or targets) a second over those of the peer as it comes: its default loss, its own loop.

    >>> one = {"test and learn": {"windows_per_s": 6.0, "targets_per_s": 6.0}}
    >>> ratios({"ours": one, "rectools sasrec, softmax": {"fit": {"windows_per_s": 2.0, "targets_per_s": 8.0}}})
    {'ours, test and learn': {'windows': 3.0, 'targets': 0.75}}
    """
    peer = rates["rectools sasrec, softmax"]["fit"]
    return {
        f"{name}, {way}": {
            what: round(rate[f"{what}_per_s"] / peer[f"{what}_per_s"], 3) for what in ("windows", "targets")
        }
        for name, of_ways in rates.items()
        for way, rate in of_ways.items()
        if not name.startswith("rectools sasrec, softmax") or way != "fit"
    }


def run(arguments: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Every window, and the figures that are asked for by name: of the first window, with the tests."""
    torch.set_num_threads(arguments.threads)
    by_window = {window: measure(Shape(window=window), arguments, say) for window in arguments.windows}
    first = by_window[arguments.windows[0]]["ratios"] or {}
    shape = Shape()
    return {
        "control_ratio_to_peer": first.get("two_tower, test and learn", {}).get("windows"),
        "t2diff_ratio_to_peer": first.get("t2diff, test and learn", {}).get("windows"),
        "device": costs.device_name(choose_device(arguments.device)),
        "threads": arguments.threads,
        "shape": {"dim": shape.dim, "batch": shape.batch, "depth": shape.depth, "items": shape.items},
        "versions": costs.versions(),
        "windows": {str(window): figures for window, figures in by_window.items()},
    }


def options(parser: argparse.ArgumentParser) -> None:
    """What can be said about this part."""
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--windows", type=int, nargs="+", default=[32, 50])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round")
    parser.add_argument("--batches", type=int, default=3, help="of each round at least")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    parsed = parser.parse_args(arguments)
    figures = run(parsed, lambda what: print(f"… {what}", file=sys.stderr, flush=True))  # noqa: T201
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
