"""How long it takes from an empty directory to the first answer of a trained model.

    python -m benchmarks.first_day [--json] [--warm]

seconds              from the clone to the end of the page's last command but those under "Stop"
seconds_by_section   by heading of docs/first-day.md; "Clone" is `git clone` of this repository as it is committed
cores, load          of the machine: how many, and how many processes wanted to run when it ended, over the last minute

Every command of docs/first-day.md is run as it stands there, on other ports. Caches of pip, uv, Go and the broker are
empty, so all that is fetched is fetched anew; --warm takes the machine's own instead. The clone and the caches are
removed afterwards.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.first_day.page import PageError, Shell, Step, steps, with_ports
from contracts.runtime.clock import SystemClock
from driftline.processes import server
from driftline.processes.broker import free_port

ROOT = Path(__file__).parents[2]
PAGE = "docs/first-day.md"
PORTS = (9092, 7001)
CACHES = {"UV_CACHE_DIR": "uv", "PIP_CACHE_DIR": "pip", "GOMODCACHE": "go-modules", "GOCACHE": "go-build"}
CLONE, LAST = "Clone", "8. Stop"


def environment(folder: Path, *, warm: bool) -> dict[str, str]:
    """The environment of somebody who has never been here: caches in `folder`, unless `warm`, and no virtualenv."""
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    path = os.pathsep.join(each for each in kept["PATH"].split(os.pathsep) if not each.startswith(sys.prefix))
    caches = {} if warm else {name: str(folder / "caches" / where) for name, where in CACHES.items()}
    go = {"GOFLAGS": f"{kept.get('GOFLAGS', '')} -modcacherw".strip()}  # so that the folder can be removed
    return kept | caches | go | {"PATH": path, "DRIFTLINE_KAFKA_HOME": str(folder / "kafka")}


def follow(folder: Path, own: Mapping[str, str]) -> dict[str, float]:
    """Follow the page from a clone in `folder`; the seconds of each section.

    Raises:
        PageError: a command did not do what the page says.

    """
    ports = {port: free_port() for port in PORTS}
    sections: dict[str, float] = {}
    with Shell(folder, own, SystemClock()) as shell:
        clone = Step(CLONE, f"git clone -q --depth 1 {ROOT.as_uri()} driftline && cd driftline", "")
        sections[CLONE] = shell.follow(clone).seconds
        for name in (PAGE, "examples/first-day/settings.yaml"):
            path = folder / "driftline" / name
            path.write_text(with_ports(path.read_text(), ports))
        for step in steps((folder / "driftline" / PAGE).read_text()):
            seconds = shell.follow(step).seconds
            sections[step.heading] = sections.get(step.heading, 0.0) + seconds
            sys.stderr.write(f"{seconds:7.1f} s  {step.command}\n")
    return sections


def main() -> None:
    """Follow the page once and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object, and not a line a section")
    parser.add_argument("--warm", action="store_true", help="use the machine's caches of pip, uv and Go")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="first-day-"))
    try:
        sections = follow(folder, environment(folder, warm=options.warm))
    except PageError as error:
        sys.exit(f"The page does not hold: {error}")
    finally:
        server.end(folder / "kafka" / "data")
        shutil.rmtree(folder)
    result: dict[str, Any] = {
        "seconds": round(sum(seconds for name, seconds in sections.items() if name != LAST), 1),
        "seconds_by_section": {name: round(seconds, 1) for name, seconds in sections.items()},
        "warm": options.warm,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
    if options.json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
        return
    for name, seconds in sections.items():
        sys.stdout.write(f"{seconds:7.1f} s  {name}\n")
    sys.stdout.write(f"{result['seconds']:7.1f} s  to the first answer of a trained model\n")


if __name__ == "__main__":
    main()
