"""`abtest.analyse`: a table and a plan in, a report out."""

from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abtest.analyse import results
from abtest.analyse.analysis import report
from abtest.analyse.results import Verdict
from abtest.api.inputs import Frame, Plan, counted_of, planned
from abtest.collect.observed import Observed
from abtest.report import files
from abtest.report.files import ReportContext
from abtest.report.wording import by_plan, line, sentence

if TYPE_CHECKING:
    import pandas as pd

HEIGHT_PX = 720  # of the page within a notebook, which scrolls


@dataclass(frozen=True)
class Report:
    """What an experiment's rows say by its plan: shown as a page in a notebook, as a frame, as JSON, or written.

    `result`: every figure as values. `context`: what was given beside the rows.
    """

    result: results.Report
    context: ReportContext

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One a treatment arm: `arm`, `decision` ("ship", "hold", "inconclusive" or "invalid") and `because`."""
        return self.result.verdicts

    def to_frame(self) -> "pd.DataFrame":
        """A row per metric and treatment arm.

        `control`, `treatment`: the values, in the metric's unit, shares as fractions. `relative`, `ci_low`, `ci_high`:
        the difference by the plan, as fractions of the control's value, with its `p_value`, and `adjusted_p_value`
        corrected for the number of metrics. `difference` with `difference_low`, `difference_high`: the plain one in the
        metric's unit. What cannot be had is missing, and `reason` says why.
        """
        import pandas as pd

        rows = []
        for result in self.result.metrics:
            values = {each.arm: each for each in result.arms}
            for verdict in self.verdicts:
                effect = line(result, verdict.arm)
                if effect is None:
                    continue
                shown = by_plan(effect)
                rows.append(
                    {
                        "metric": result.metric,
                        "label": result.label,
                        "role": result.role,
                        "unit": result.unit,
                        "arm": verdict.arm,
                        "users": values[verdict.arm].users,
                        "control": values[self.result.control].value,
                        "treatment": values[verdict.arm].value,
                        "relative": shown.relative,
                        "ci_low": shown.low,
                        "ci_high": shown.high,
                        "p_value": shown.p_value,
                        "adjusted_p_value": effect.planned.adjusted_p_value if effect.planned else None,
                        "difference": effect.effect.difference,
                        "difference_low": effect.effect.difference_low,
                        "difference_high": effect.effect.difference_high,
                        "reason": shown.reason,
                    }
                )
        return pd.DataFrame(rows)

    def to_json(self) -> dict[str, Any]:
        """What ``report.json`` holds, as plain values; docs/report.schema.json has the types."""
        return files.to_json(self.result, self.context)

    def to_html(self) -> str:
        """The page, which needs no network."""
        return files.html(self.result, self.context)

    def to_markdown(self) -> str:
        """The same for a ticket."""
        return files.markdown(self.result, self.context)

    def write(self, folder: str | PathLike[str]) -> None:
        """Write ``report.html``, ``report.json`` and ``report.md`` into a folder, which is made where it is missing."""
        files.write(self.result, self.context, Path(folder))

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that its styles and the notebook's leave each other alone."""
        page = escape(self.to_html(), quote=True)
        return f'<iframe title="A/B report" srcdoc="{page}" style="width:100%;height:{HEIGHT_PX}px;border:0"></iframe>'

    def __str__(self) -> str:
        return "\n".join(map(sentence, self.verdicts))

    __repr__ = __str__


def analyse(frame: Frame, plan: Plan, *, before: Frame | None = None) -> Report:
    """Analyse an experiment's rows by its plan: what `driftline experiment report --data` writes.

    >>> import abtest
    >>> report = abtest.analyse(
    ...     {"variant": ["a", "b"] * 500, "bought": [True, True, False, True, False] * 200},
    ...     {"columns": {"arm": "variant"}, "control": "a", "metrics": [{"name": "bought", "kind": "conversion"}]},
    ... )
    >>> print(report)
    Inconclusive: b. Bought may have risen or fallen; its interval includes zero.
    >>> report.to_frame()[["metric", "arm", "users", "control", "treatment"]].to_dict("records")
    [{'metric': 'bought', 'arm': 'b', 'users': 500, 'control': 0.6, 'treatment': 0.6}]

    Args:
        frame: of pandas or polars, an Arrow table, a relation of DuckDB, a table of Ibis (of any engine), columns by
            name, or the path of a Parquet or CSV file. A row is of a user, a user's day or an event, as the plan says.
        plan: a mapping, the path of a YAML file, or an experiment. docs/experiments.md has both kinds of file: those of
            a table of one's own, and those of an experiment that driftline assigned.
        before: covariates in a table of their own, a row per user, where driftline assigned the experiment.

    Raises:
        DataError: the rows cannot be used; one sentence names the column and the first value that is wrong.
        SettingsError: the plan cannot be used.

    """
    checked = planned(plan)
    rows, experiment = counted_of(frame, checked, before)
    context = ReportContext(configuration={"experiment": checked.model_dump(mode="json")})
    return Report(report(rows.aggregate, experiment, Observed(counts=rows.counts)), context)
