"""Where a runner's reports come from: what the collector has saved, or rows of a warehouse."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from abtest.analyse.context import ReportContext
from abtest.analyse.interim import always_valid_only, live_report, watched
from abtest.analyse.results import Report
from abtest.collect.parts import load_state, saved_parts
from contracts.config.experiment import Experiment
from contracts.config.settings import Settings
from driftline.experiment.changes import course_of
from driftline.experiment.collected import collected
from driftline.experiment.context import known_context
from driftline.experiment.data import report_on
from driftline.inspect.build import commit


class Source(Protocol):
    """An experiment, and what is known of it. Every method may raise what `driftline.errors` names."""

    def experiment(self) -> Experiment:
        """It, with what operators have done to it."""

    def report(self, closed_ms: int) -> tuple[Report, ReportContext]:
        """The report on all there is now. `closed_ms`: the end of the newest day whose rows are all in."""

    def live(self, closed_ms: int) -> Report | None:
        """What can be looked at at any time; None where there is nothing yet, or nothing new."""


class Collected:
    """A `Source` on the collector's state."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: list[tuple[int, int]] = []  # of each collector's file: when it was written, its size

    def experiment(self) -> Experiment:
        return course_of(self._settings).experiment

    def report(self, closed_ms: int) -> tuple[Report, ReportContext]:  # noqa: ARG002 (it knows its newest event)
        return collected(self._settings)

    def live(self, closed_ms: int) -> Report | None:  # noqa: ARG002
        seen = [(stat.st_mtime_ns, stat.st_size) for stat in map(Path.stat, saved_parts(self._settings))]
        if not seen or seen == self._seen:
            return None
        state = load_state(self._settings)
        self._seen = seen
        return live_report(state, known_context(self._settings, state).models)


@dataclass(frozen=True)
class Rows:
    """A `Source` on rows of users and days, as `driftline experiment report --data` takes them."""

    of: Experiment
    data: str
    table: str | None = None
    pre: str | None = None
    pre_table: str | None = None

    def experiment(self) -> Experiment:
        return self.of

    def report(self, closed_ms: int) -> tuple[Report, ReportContext]:
        context = ReportContext(configuration={"experiment": self.of.model_dump(mode="json")}, commit=commit())
        return self._read(self.of, closed_ms), context

    def live(self, closed_ms: int) -> Report | None:
        if closed_ms <= self.of.start_ms:
            return None
        report = self._read(watched(self.of), closed_ms)
        return always_valid_only(report, self.of.analysis)

    def _read(self, experiment: Experiment, closed_ms: int) -> Report:
        given = self.data, self.table, self.pre, self.pre_table
        return report_on(experiment, *given, None, None, newest_ms=closed_ms - 1)
