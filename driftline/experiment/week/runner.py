"""Runs an experiment's week: does what is due, writes its reports, sounds alarms, and ends with the last one."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from threading import Event

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from kafka.errors import KafkaError

from abtest.analyse.results import Report
from abtest.report.files import write
from contracts.config.experiment import Experiment
from contracts.runtime.clock import Clock
from contracts.runtime.durable import LockedError, lock_file
from driftline.errors import RUN_ERRORS, USER_ERRORS, UsageError
from driftline.experiment.week import notices
from driftline.experiment.week.book import Book
from driftline.experiment.week.notices import Notice
from driftline.experiment.week.outbox import Outbox, Send
from driftline.experiment.week.schedule import Due, Job, closed_ms, coming, due, jobs_of
from driftline.experiment.week.sources import Source

log = structlog.get_logger()
NEWEST = "latest"
OUTBOX_EVERY_S = 2
TROUBLES = (*USER_ERRORS, *RUN_ERRORS, KafkaError, OSError)
Stop = Callable[[str], None]


class Runner:
    """One experiment's week, a step at a time."""

    def __init__(
        self,
        source: Source,
        home: Path,
        book: Book,
        clock: Clock,
        close_after_ms: int,
        tell: Collection[str],
        stop: Stop | None = None,
    ) -> None:
        """Args:
        source: of the experiment and its reports.
        home: folder of the reports, one for each day, and of the newest.
        book: what was done so far.
        clock: tells what is due.
        close_after_ms: how long a day's late rows are waited for.
        tell: names of the senders that get each notice.
        stop: stops the experiment, given why, once its plan has decided in every arm; None: it goes on.

        """
        self._source = source
        self._home = home
        self._book = book
        self._clock = clock
        self._close_after_ms = close_after_ms
        self._tell = tell
        self._stop = stop

    @property
    def ended(self) -> bool:
        """Whether the final report was made, and everybody told who could be."""
        return self._book.page.ended and not self._book.page.waiting

    def step(self) -> None:
        """Do what is due, and look for what is wrong. What cannot be done now is tried at the next step."""
        if self._book.page.ended:
            return
        try:
            experiment = self._source.experiment()
        except TROUBLES as error:
            log.warning("the experiment cannot be looked up; it is tried again", why=str(error))
            return
        jobs = jobs_of(experiment, self._close_after_ms)
        now_ms = self._clock.now_ms()
        now = due(jobs, self._book.page.done, now_ms)
        for job in now.ramps:
            self._told(notices.of_ramp(experiment, job, now_ms))
            self._book.did([job.key])
        if now.report is not None:
            self._report(experiment, now.report, now, now_ms)
        elif experiment.start_ms <= now_ms < experiment.end_ms:
            self._look(experiment, now_ms)
        then = coming(jobs, self._book.page.done)
        self._book.change(next=then.key if then else "", next_ms=then.at_ms if then else 0)

    def _report(self, experiment: Experiment, job: Job, now: Due, now_ms: int) -> None:
        folder = self._home / job.key
        try:
            report, context = self._source.report(job.at_ms - self._close_after_ms)
            for each in (folder, self._home / NEWEST):
                write(report, context, each)
        except TROUBLES as error:
            log.warning("a report cannot be made; it is tried again", day=job.day + 1, why=str(error))
            self._told(notices.of_failure(experiment, job, str(error), now_ms))
            return
        log.info("report made", day=job.day + 1, folder=str(folder), final=job.final, look=job.look)
        self._told(notices.of_report(experiment, job, now.missed, report, folder, now_ms))
        said = tuple((verdict.arm, verdict.decision) for verdict in report.verdicts)
        self._book.change(report=str(folder), said=said)
        if job.look and not job.final and self._stop is not None and decided(report):
            self._stop_by_plan(experiment, report, now_ms)
        self._book.did([*(each.key for each in now.missed), job.key])
        if job.final:
            self._book.change(ended=True)

    def _stop_by_plan(self, experiment: Experiment, report: Report, now_ms: int) -> None:
        why = " ".join(f"{verdict.arm}: {verdict.decision}." for verdict in report.verdicts)
        try:
            if self._stop is not None:
                self._stop(f"Its plan has decided. {why}")
        except TROUBLES as error:
            log.warning("the experiment cannot be stopped; people may", why=str(error))
            self._told(Notice("stop-failed", "failure", now_ms, f"{experiment.name}: not stopped", str(error)))
        else:
            self._told(notices.of_stop(experiment, why, now_ms))

    def _look(self, experiment: Experiment, now_ms: int) -> None:
        try:
            live = self._source.live(closed_ms(experiment, now_ms - self._close_after_ms))
        except TROUBLES as error:
            log.warning("nothing can be looked at between reports", why=str(error))
            return
        for alarm in notices.of_alarms(experiment, live, now_ms) if live else ():
            self._told(alarm)

    def _told(self, notice: Notice) -> None:
        if self._book.tell(notice, self._tell):
            log.info("notice", kind=notice.kind, subject=notice.subject, text=notice.text, report=notice.report)


def decided(report: Report) -> bool:
    """Whether the plan has said of every arm what to do."""
    return bool(report.verdicts) and all(verdict.decision in ("ship", "hold") for verdict in report.verdicts)


def run(
    source: Source,
    out: Path,
    senders: Mapping[str, Send],
    clock: Clock,
    stopped: Event,
    announce: Callable[[], None],
    *,
    every_s: float,
    close_after_ms: int,
    stop: Stop | None = None,
) -> None:
    """Run an experiment's week until it has ended or `stopped` is set; a restart goes on from there.

    Args:
        source: of the experiment and its reports.
        out: folder of all experiments' reports; this one's are in one of its name.
        senders: who gets notices, by name.
        clock: tells what is due.
        stopped: ends it before its time; set, too, when it has ended.
        announce: called once it runs.
        every_s: from one step to the next.
        close_after_ms: how long a day's late rows are waited for.
        stop: as of `Runner`.

    Raises:
        UsageError: another one runs this experiment, or the folder cannot be used.
        StateError: the folder has another experiment's reports.

    """
    experiment = source.experiment()
    home = out / experiment.name
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = lock_file(home / "lock")
    except LockedError:
        raise UsageError(f"Another `driftline experiment run` runs {experiment.name} in {home}; it goes on.") from None
    except OSError as error:
        raise UsageError(f"Cannot write to {home}: {error.strerror}.") from error
    with lock:
        book = Book(home, experiment.name, experiment.hash)
        runner = Runner(source, home, book, clock, close_after_ms, tuple(senders), stop)
        outbox = Outbox(book, senders, clock)

        def do(act: Callable[[], None]) -> None:
            act()
            if runner.ended:
                stopped.set()

        # A webhook that is down must delay no report: each has a thread, and neither runs twice at once.
        scheduler = BackgroundScheduler(job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None})
        if runner.ended:
            log.info("its final report was made before; nothing is to be done", folder=str(home / NEWEST))
        do(runner.step)
        scheduler.add_job(do, "interval", [runner.step], seconds=every_s)
        scheduler.add_job(do, "interval", [outbox.step], seconds=min(OUTBOX_EVERY_S, every_s))
        scheduler.start()
        announce()
        stopped.wait()
        scheduler.shutdown(wait=True)
