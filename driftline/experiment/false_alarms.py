"""What `experiment aa` found of the verdict, kept beside the state for the reports that follow.

They are those on the state itself, and those on rows or a saved aggregate that are made with the same settings.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from abtest.analyse.context import FalseAlarms
from contracts.config.settings import Settings
from contracts.runtime.durable import replace_file

ALIKE = 2  # how often a verdict is wrong depends on how much of a metric an arm has


def save_false_alarms(alarms: FalseAlarms, settings: Settings) -> None:
    """Keep them, with what they hold for: the experiment's arms, metrics and plan."""
    content = {"of": _judged_by(settings), "verdicts": asdict(alarms)}
    replace_file(_file(settings), json.dumps(content, indent=2).encode())


def known_false_alarms(settings: Settings, users: int) -> FalseAlarms | None:
    """Those kept, for a report on so many users; None where `aa` was not run, or on other arms, metrics or another
    plan, or on fewer than half or more than `ALIKE` times as many users, or its file is damaged.
    """
    try:
        content = json.loads(_file(settings).read_text(encoding="utf-8"))
        if content["of"] != _judged_by(settings):
            return None
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content["verdicts"].items()
        }
        alarms = FalseAlarms(**values)
        return alarms if alarms.users <= ALIKE * users and users <= ALIKE * alarms.users else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(settings: Settings) -> Path:
    return settings.state / "abtest-aa.json"


def _judged_by(settings: Settings) -> object:
    return settings.experiment.model_dump(mode="json", include={"name", "salt", "arms", "metrics", "analysis"})
