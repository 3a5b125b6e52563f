"""Effective view rate by day, a line a policy, as SVG or PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

from evaluation.lab.results import Outcome, over_seeds
from evaluation.pictures import STYLE, axes_of, save

COLOURS = ("#222222", "#1f5fa8", "#c2571a", "#3a8f5c", "#8a4fa3", "#9a9a9a", "#b08900")


def draw(weeks: Mapping[str, Sequence[Outcome]], path: Path) -> None:
    """Draw the weeks of each policy, to a .svg or a .png; bars are two standard errors over seeds."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": "driftline", "svg.fonttype": "none"}):
        figure, axes = axes_of(3.4)
        for place, (name, each) in enumerate(weeks.items()):
            days = range(1, each[0].views.shape[1] + 1)
            rates = [
                over_seeds([rate for week in each if (rate := week.evr_by_day[day - 1]) is not None] or [float("nan")])
                for day in days
            ]
            bars = [2 * (rate.std_error or 0.0) for rate in rates]
            colour = COLOURS[place % len(COLOURS)]
            axes.errorbar(
                days, [r.mean for r in rates], yerr=bars, color=colour, marker="o", markersize=3, linewidth=1.4,
                elinewidth=0.8, label=name,
            )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_xticks(list(range(1, max(each[0].views.shape[1] for each in weeks.values()) + 1)))
        axes.set_xlabel("day of the experiment")
        axes.set_ylabel("effective view rate")
        axes.grid(axis="y")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        save(figure, path)
