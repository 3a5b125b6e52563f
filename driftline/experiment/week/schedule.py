"""What an experiment's runner has to do, and when. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from contracts.config.experiment import Experiment


@dataclass(frozen=True)
class Job:
    """Something to do at a moment.

    `day`: of a report, the last day that it is on, counted from 0. `look`: whether the plan may decide at that day.
    `final`: whether no report follows. `share`: of a ramp, who is in from then on.
    """

    kind: Literal["ramp", "report"]
    at_ms: int
    day: int = 0
    look: bool = False
    final: bool = False
    share: float = 1.0

    @property
    def key(self) -> str:
        """A name that stays the same over restarts.

        >>> Job("report", 0, day=2).key, Job("ramp", 5, share=0.5).key
        ('day-03', 'ramp-5')
        """
        return f"day-{self.day + 1:02d}" if self.kind == "report" else f"ramp-{self.at_ms}"


@dataclass(frozen=True)
class Due:
    """What is to be done now. `missed`: reports whose time came while nobody made them; `report` is in their place."""

    ramps: tuple[Job, ...] = ()
    report: Job | None = None
    missed: tuple[Job, ...] = ()


def jobs_of(experiment: Experiment, close_after_ms: int) -> tuple[Job, ...]:
    """All that is to be done, in the order of time.

    Args:
        experiment: with what operators have done to it. One that was stopped has no days after that.
        close_after_ms: how long after its end a day's late rows are waited for.

    """
    stops = [change.from_ms for change in experiment.changes if change.kind == "stop"]
    end_ms = max(min([*stops, experiment.end_ms]), experiment.start_ms + 1)
    last = experiment.day_of(end_ms - 1)
    looks = {last} if experiment.analysis.kind == "fixed" and not stops else {*experiment.look_days}
    ramps = [Job("ramp", step.from_ms, share=step.share) for step in experiment.ramp if step.from_ms < end_ms]
    reports = [
        Job(
            "report",
            min(experiment.calendar.midnight_ms(experiment.first_date + day + 1), end_ms) + close_after_ms,
            day=day,
            look=day in looks,
            final=day == last,
        )
        for day in range(last + 1)
    ]
    return tuple(sorted([*ramps, *reports], key=lambda job: job.at_ms))


def due(jobs: Sequence[Job], done: Collection[str], now_ms: int) -> Due:
    """What of `jobs` is to be done now; reports that were missed are made up for by one.

    >>> days = [Job("report", 10 * day, day=day) for day in range(4)]
    >>> now = due(days, {"day-01"}, 25)
    >>> now.report.key, [job.key for job in now.missed]
    ('day-03', ['day-02'])
    """
    come = [job for job in jobs if job.at_ms <= now_ms and job.key not in done]
    reports = [job for job in come if job.kind == "report"]
    ramps = tuple(job for job in come if job.kind == "ramp")
    return Due(ramps, reports[-1] if reports else None, tuple(reports[:-1]))


def closed_ms(experiment: Experiment, now_ms: int) -> int:
    """The newest end of a day of the experiment up to `now_ms`, or its start."""
    midnight_ms = experiment.calendar.midnight_ms(experiment.calendar.date_number(now_ms))
    return max(midnight_ms, experiment.start_ms)


def coming(jobs: Sequence[Job], done: Collection[str]) -> Job | None:
    """The next one that is not done; None where all are.

    >>> coming([Job("report", 5), Job("report", 9, day=1)], {"day-01"}).at_ms
    9
    """
    return next((job for job in jobs if job.key not in done), None)
