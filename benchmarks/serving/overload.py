"""What a replica still answers when it is asked for far more than it can, by how many calls gRPC may hold for it.

    python -m benchmarks.serving.overload [--rate 1000] [--seconds 3] [--turns 2] [--pending 1000 256 128 64]

Replicas that differ in `serving.pending_calls` alone take turns under one load, so that what else the machine does
falls on all of them. `answered` is the rate of good answers within the deadline of one second; `codes` are gRPC's.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.options import Say, command, common, machine, world
from benchmarks.serving.rig import rig
from benchmarks.serving.shots import Shot, generator
from benchmarks.serving.versions import MODEL
from benchmarks.serving.world import NOW_MS


def run(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Every limit in every turn."""
    by_pending: dict[int, list[dict[str, Any]]] = {pending: [] for pending in options.pending}
    with (
        tempfile.TemporaryDirectory() as folder,
        rig(world(options), Path(folder), [MODEL], options.redis) as bench,
        generator() as load,
    ):
        arms = (MODEL, MODEL)
        replicas = {
            pending: bench.start(f"replica-{pending}", bench.settings(arms, pending_calls=pending))  # type: ignore[arg-type]
            for pending in options.pending
        }
        for turn in range(options.turns):
            for pending, replica in replicas.items():
                shot = Shot(
                    (replica.address,),
                    options.rate,
                    options.seconds,
                    bench.world.users,
                    k=options.k,
                    time_ms=NOW_MS,
                )
                figures = load.fire(Shot(**vars(shot) | {"seed": turn}))
                by_pending[pending].append({"answered": figures["achieved_rate"]} | figures)
                say(f"{pending} may wait: {figures['achieved_rate']}/s answered, others {figures['codes']}")
        for replica in replicas.values():
            bench.stop(replica)
    return {"rate": options.rate, "by_pending_calls": by_pending} | machine(options)


def options(parser: argparse.ArgumentParser) -> None:
    """What can be said about this part."""
    common(parser)
    parser.add_argument("--rate", type=float, default=1000.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--pending", type=int, nargs="+", default=[1000, 256, 128, 64], help="calls that gRPC may hold")


def main(arguments: Sequence[str] | None = None) -> None:
    sys.stdout.write(json.dumps(command(__doc__, options, run, arguments), indent=1) + "\n")


if __name__ == "__main__":
    main()
