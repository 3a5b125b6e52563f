"""By which rules a collector counts: its experiment, and the windows that it shares with the stream."""

from collections.abc import Sequence
from typing import NamedTuple

from contracts.config.changes import Change
from contracts.config.settings import Experiment, Settings
from contracts.runtime.clock import DAY_MS

PRE_DAYS = 7  # how long before the experiment's start users are watched, for covariates and the check for bias


class Rules(NamedTuple):
    """What decides whether and where an event counts."""

    experiment: Experiment
    session_gap_ms: int
    attribution_window_ms: int
    allowed_lateness_ms: int
    hash: str = ""  # of the experiment's definition; empty: as "not known"

    @classmethod
    def of(cls, settings: Settings) -> "Rules":
        """The rules that the settings state."""
        stream, experiment = settings.stream, settings.experiment
        return cls(
            experiment,
            stream.session_gap_ms,
            stream.attribution_window_ms,
            stream.allowed_lateness_ms,
            experiment.hash,
        )

    def after(self, changes: Sequence[Change]) -> "Rules":
        """The same for the experiment with these changes, which decide nothing here: an exposure says its arm."""
        return self._replace(experiment=self.experiment.model_copy(update={"changes": tuple(changes)}))

    @property
    def begin_ms(self) -> int:
        """Where the pre-period begins."""
        return self.experiment.start_ms - PRE_DAYS * DAY_MS

    def day(self, time_ms: int) -> int:
        """Day of the experiment, 0 being the one that `start_ms` falls on."""
        return self.experiment.day_of(time_ms)
