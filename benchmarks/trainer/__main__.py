"""The trainer's figures as one JSON object.

    python -m benchmarks.trainer --json [--parts speed sync latency deltas] [--data KUAIRAND_PURE] [--quick]

    speed    examples per second beside a mainstream library's SASRec (`benchmarks.trainer.speed`)
    sync     quality by how often what serves is synced (`benchmarks.trainer.sync`); needs the KuaiRand-Pure folder
    latency  from an event to an answer that knows of it, on a live broker (`benchmarks.trainer.latency`)
    deltas   what deltas weigh over a day (`benchmarks.trainer.deltas`); needs the KuaiRand-Pure folder

Each part is a command of its own as well, with more to say about it. The peer needs `make bench-trainer`.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

from benchmarks.options import folder

PARTS = ("speed", "sync", "latency", "deltas")
OF_THE_LOG = ("sync", "deltas")
QUICK = {
    "speed": ["--rounds", "1", "--windows", "32"],
    "sync": ["--seeds", "1", "--batch-sizes", "128"],
    "latency": [
        *("--rate", "100", "--seconds", "5", "--warm-up", "5", "--items", "500"),
        *("--publish-every", "4", "--deltas-every", "2"),
    ],
    "deltas": ["--batch-sizes", "128", "--last", "8000", "--items", "--begun", "20", "--followed", "10"],
}
FIGURES = {
    "speed": ("control_ratio_to_peer", "t2diff_ratio_to_peer"),
    "latency": ("served_vectors_p99_s", "served_tower_p99_s"),
    "deltas": ("delta_bytes_per_min",),
}


def part(name: str, *arguments: object) -> dict[str, Any]:
    """Run one part in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.trainer.{name}", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--data", type=folder, help="the KuaiRand-Pure folder; without it `sync` and `deltas` are left out"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--quick", action="store_true", help="the least of everything: does it run?")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    options = parser.parse_args()
    parts: dict[str, Any] = {}
    for name in options.parts:
        if name in OF_THE_LOG and options.data is None:
            continue
        data = ["--data", options.data] if name in OF_THE_LOG else []
        parts[name] = part(name, *data, "--device", options.device, *(QUICK[name] if options.quick else []))
    figures: dict[str, Any] = {"device": next((of_part["device"] for of_part in parts.values()), None)}
    for name, keys in FIGURES.items():
        figures |= {key: parts.get(name, {}).get(key) for key in keys}
    figures["parts"] = parts
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        for name, value in figures.items():
            sys.stdout.write(f"{name:30} {json.dumps(value)}\n")


if __name__ == "__main__":
    main()
