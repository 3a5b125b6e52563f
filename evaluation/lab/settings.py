"""A settings file for policies: that of a deployment, or its sections `trainer` and `stream` alone."""

from pathlib import Path

from contracts.config.experiment import validated
from contracts.config.section import Section
from contracts.config.settings import StreamSettings, TrainerSettings, load
from contracts.config.yaml_file import read_yaml
from world.base import LATENESS_MS

OF_A_DEPLOYMENT = {"kafka", "experiment"}
BY_THE_CLOCK = ("publish_every_s", "deltas_every_s")


class LabSettings(Section):
    """What the laboratory takes of settings."""

    trainer: TrainerSettings = TrainerSettings()
    stream: StreamSettings = StreamSettings(allowed_lateness_ms=LATENESS_MS)

    def by_the_clock(self) -> list[str]:
        """The trainer's settings that are given and have no effect in event time."""
        return [name for name in BY_THE_CLOCK if getattr(self.trainer, name) is not None]


def read_settings(path: Path) -> LabSettings:
    """Read a file.

    Raises:
        SettingsError: it is absent, is not YAML, or a setting is wrong.

    """
    data = read_yaml(path)
    if isinstance(data, dict) and OF_A_DEPLOYMENT & data.keys():
        settings = load(path)
        return LabSettings(trainer=settings.trainer, stream=settings.stream)
    return validated(LabSettings, data, str(path))
