"""A cluster on one machine whose hosts are killed while users ask, each with its disk.

    python -m benchmarks.cluster --json [--kills 6] [--seconds 60] [--seed 0] [--engine flink]

Kafka, Redis and an S3 server stand for services of their own and are not killed. Hosts are directories without a shared
path, kept apart by ports alone (no network namespaces): stream, trainer, two replicas, two collectors. A killed host
gets SIGKILL, its directory is deleted, and it is started again with an empty disk. The stream worker's state is its
disk, so its host is not killed. With `--engine flink` the stream is a JobManager, two TaskManagers and the row writer,
with checkpoints on the S3 server; these are killed too, and a TaskManager's Python alone.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.cluster.run import ENGINES, measure
from contracts.runtime.worker import configure_logs
from driftline.errors import RunError, UsageError
from driftline.processes.supervisor import interrupt_on_stop_signals


def main() -> int:
    """Measure and print; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--json", action="store_true", help="on one line")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second at most")
    parser.add_argument("--engine", choices=ENGINES, default="worker", help="that the stream runs on")
    options = parser.parse_args()

    def say(what: str) -> None:
        sys.stderr.write(f"{what}\n")
        sys.stderr.flush()

    configure_logs(quiet=True)
    interrupt_on_stop_signals()
    with tempfile.TemporaryDirectory(prefix="cluster-") as scratch:
        try:
            figures = measure(
                Path(scratch).resolve(), options.kills, options.seconds, options.seed, options.rate, say, options.engine
            )
        except KeyboardInterrupt:
            say("stopped")
            return 130
        except (UsageError, RunError, TimeoutError) as error:
            say(f"The cluster did not come to its end: {error}")
            return 1
    sys.stdout.write(json.dumps(figures, indent=None if options.json else 2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
