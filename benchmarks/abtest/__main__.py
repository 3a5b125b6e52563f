"""The A/B room's proofs and figures as one JSON object.

    python -m benchmarks.abtest --json [--only golden aa …] [--quick] [--data FOLDER] [--replicates 20000]

    golden     the oracle libraries' numbers and published experiments (`benchmarks.abtest.golden`)
    aa         false positives, and coverage at planted lifts, of made-up users (`benchmarks.abtest.aa`)
    aa_real    the same of KuaiRand-Pure's users; needs --data
    verdicts   the verdict's own false alarms by shape of data, and its power (`benchmarks.abtest.verdicts`)
    peeking    a look every day of a week in which nothing differs (`benchmarks.abtest.peeking`)
    planted    effects and faults planted in simulated weeks (`benchmarks.abtest.planted`)
    quantiles  coverage and time of quantiles (`benchmarks.abtest.quantiles`)
    assign     assignment: evenness, independence, ramps, speed (`benchmarks.abtest.assign`)
    scale      3 M users x 7 days beside tea-tasting: time, memory (`benchmarks.abtest.scale`)

Each part is a command of its own as well, with more to say about it, and its JSON stands whole under `parts`. They run
one after the other. --data is the folder of public data sets; by default DRIFTLINE_DATA, where that is set. What has no
figure is null: its part did not run, or failed, and `failed` says so.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.options import folder

PARTS = ("golden", "aa", "aa_real", "verdicts", "peeking", "planted", "quantiles", "assign", "scale")
MODULES = {"aa_real": "aa"}  # where a part is not called as its module
KUAIRAND = "kuairand-pure"
AA_USERS = 20_000  # an experiment's, both arms together: about as many as KuaiRand-Pure has
QUICK: dict[str, list[str]] = {
    "aa": ["--replicates", "200", "--users", "2000"],
    "aa_real": ["--replicates", "200", "--users", "2000"],
    "verdicts": ["--replicates", "50"],
    "peeking": ["--replicates", "200", "--users", "1000"],
    "planted": ["--seeds", "2", "--planted-seeds", "1", "--users", "100"],
    "quantiles": ["--replicates", "100", "--users", "1000", "--values", "500000"],
    "assign": ["--users", "50000", "--repeats", "1", "--salts", "20"],
    "scale": ["--users", "20000"],
}


def part(name: str, *arguments: object) -> dict[str, Any]:
    """Run one part in a process of its own.

    Raises:
        subprocess.CalledProcessError: it failed; what it said is on standard error.

    """
    module = f"benchmarks.abtest.{MODULES.get(name, name)}"
    command = [sys.executable, "-W", "ignore", "-m", module, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def arguments_of(name: str, data: Path | None, replicates: int, quick: bool) -> list[object]:
    """What a part is told."""
    options: list[object] = []
    if name in ("aa", "aa_real"):
        options += ["--replicates", replicates, "--users", AA_USERS]
    if name == "peeking":
        options += ["--replicates", replicates]
    if name == "verdicts":
        options += ["--replicates", max(replicates // 10, 1)]  # the whole rule, on up to 40,000 users a week
    if name in ("golden", "verdicts") and data:
        options += ["--data", data]
    if name == "aa_real" and data:
        options += ["--data", data / KUAIRAND]
    return options + (QUICK.get(name, []) if quick else [])  # the last one of an option counts


def figures(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that are asked for by name; None where the part that has one is not there."""
    golden, assign, scale = (parts.get(name, {}) for name in ("golden", "assign", "scale"))
    real, planted = (parts.get(name, {}) for name in ("aa_real", "planted"))
    return {
        "time_ratio_to_tea_tasting": scale.get("time_ratio_to_tea_tasting"),
        "memory_ratio_to_tea_tasting": scale.get("memory_ratio_to_tea_tasting"),
        "report_from_state_ms": scale.get("report_from_state_ms"),
        "one_more_day_s": scale.get("one_more_day_s"),
        "state_kb": scale.get("state_kb"),
        "scale_max_relative_error": scale.get("max_relative_error"),
        "golden_max_relative_error": golden.get("golden_max_relative_error"),
        "published_that_differ": golden.get("published_that_differ"),
        "aa_false_positive": parts.get("aa", {}).get("aa_false_positive"),
        "aa_false_positive_real_users": real.get("aa_false_positive"),
        "verdict_false_ship": parts.get("verdicts", {}).get("verdict_false_ship"),
        "verdict_false_hold": parts.get("verdicts", {}).get("verdict_false_hold"),
        "power_kept": parts.get("verdicts", {}).get("power_kept"),
        "peeking_false_positive": parts.get("peeking", {}).get("peeking_false_positive"),
        "coverage": parts.get("aa", {}).get("coverage"),
        "coverage_real_users": real.get("coverage"),
        "coverage_quantiles": parts.get("quantiles", {}).get("coverage"),
        "planted_coverage": planted.get("coverage"),
        "planted_interference_flagged": planted.get("interference_flagged"),
        "planted_split_flagged": planted.get("split_flagged"),
        "planted_bias_flagged": planted.get("bias_flagged"),
        "assignment_buckets": assign.get("assignment_buckets"),
        "assignment_layers": assign.get("assignment_layers"),
        "ramp_moved": assign.get("ramp", {}).get("moved"),
        "assigns_per_s_one": assign.get("assigns_per_s_one"),
        "assigns_per_s_many": assign.get("assigns_per_s_many"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--replicates", type=int, default=20_000, help="of `aa`, `aa_real` and `peeking`")
    parser.add_argument("--data", type=folder, default=os.environ.get("DRIFTLINE_DATA"), help="public data sets")
    parser.add_argument("--quick", action="store_true", help="the least of everything: does it run?")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    asked = parser.parse_args(arguments)
    parts: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name in asked.only:
        if name == "aa_real" and asked.data is None:
            failed[name] = "there is no --data"
            continue
        sys.stderr.write(f"{name} …\n")
        began_s = time.perf_counter()
        try:
            parts[name] = part(name, *arguments_of(name, asked.data, asked.replicates, asked.quick))
        except subprocess.CalledProcessError as error:
            failed[name] = f"exit code {error.returncode}"
        sys.stderr.write(f"{name} {failed.get(name, 'done')} in {time.perf_counter() - began_s:.0f} s\n")
    everything = figures(parts) | {"failed": failed, "parts": parts}
    if asked.json:
        sys.stdout.write(json.dumps(everything) + "\n")
    else:
        for name, value in everything.items():
            sys.stdout.write(f"{name:30} {json.dumps(value)}\n")
    if any(name in failed for name in asked.only if name != "aa_real"):
        sys.exit(1)


if __name__ == "__main__":
    main()
