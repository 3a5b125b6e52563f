"""What all parts of the serving benchmark share on the command line and in their JSON."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.world import DIM, WINDOW, World
from evaluation import costs

Say = Callable[[str], None]


def common(parser: argparse.ArgumentParser) -> None:
    """Options of every part."""
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--redis", help="HOST:PORT of Redis for the online store; without it: SQLite")
    parser.add_argument("--out", type=Path, default=Path("out/serving"), help="where files go, such as flame graphs")


def world(options: argparse.Namespace) -> World:
    """Whom and what a part asks about."""
    return World(options.items, options.users)


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures were taken on and of."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "items": options.items,
        "users": options.users,
        "k": options.k,
        "dim": DIM,
        "window": WINDOW,
        "store": "redis" if options.redis else "sqlite",
        "versions": costs.versions(),
    }


def command(
    what: str | None,
    options: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace, Say], dict[str, Any]],
    arguments: Sequence[str] | None,
) -> dict[str, Any]:
    """Run one part as its command line says; progress goes to standard error."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)

    def say(text: str) -> None:
        sys.stderr.write(f"… {text}\n")
        sys.stderr.flush()

    return run(parser.parse_args(arguments), say)
