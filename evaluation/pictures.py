"""The reproduction's pictures as PNG. The same numbers give the same bytes with the same matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.metrics import Interval

WIDTH = 7.0  # inches
ROW = 0.27  # height of a row, inches
INK, PALE, LEAD, OTHER = "#222222", "#9a9a9a", "#1f5fa8", "#c2571a"

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same letters
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
}


def estimates(rows: Mapping[str, Interval], published: Mapping[str, float], label: str, path: Path) -> None:
    """A row a model: our estimate with its interval and, where there is one, the published figure."""
    with mpl.rc_context(STYLE):
        figure, axes = axes_of(1.0 + ROW * len(rows))
        places = _rows(axes, list(rows))
        _bars(axes, rows, places, "ours, 95 % interval over users")
        common = [name for name in rows if name in published]
        if common:
            at = [places[name] for name in common]
            axes.scatter([published[n] for n in common], at, marker="D", s=18, color=OTHER, label="the paper", zorder=3)
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.legend(loc="best")
        save(figure, path)


def differences(rows: Mapping[str, Interval], label: str, path: Path) -> None:
    """A row a model: its relative difference to the control, with its interval."""
    with mpl.rc_context(STYLE):
        figure, axes = axes_of(0.9 + ROW * len(rows))
        shown = {n: Interval(*(100 * v for v in (i.value, i.low, i.high))) for n, i in rows.items()}
        _bars(axes, shown, _rows(axes, list(rows)), "")
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlabel(label)
        save(figure, path)


def cosines(course: Mapping[str, list[float]], path: Path) -> None:
    """Cosine similarity of ẑ₀ and z₀ along the reverse process, which goes from left to right."""
    with mpl.rc_context(STYLE):
        figure, axes = axes_of(3.2)
        for key, label, colour in (("all", "all drifts", PALE), ("last", "the last drift alone", LEAD)):
            axes.plot(course["step"], course[key], color=colour, label=label)
        axes.invert_xaxis()
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.grid(axis="y")
        axes.set_xlabel("step r of the reverse process")
        axes.set_ylabel("mean cosine of ẑ₀ and z₀")
        axes.legend(loc="best")
        save(figure, path)


def samplings(studies: Mapping[str, Mapping[str, list[float]]], path: Path) -> None:
    """Recall@20 by the number of network evaluations; the model's own way as a diamond."""
    with mpl.rc_context(STYLE):
        figure, axes = axes_of(3.2)
        for (name, study), colour in zip(sorted(studies.items()), (LEAD, OTHER), strict=False):
            steps, recalls = study["evaluations"], study["recall@20"]
            axes.plot(steps[1:], recalls[1:], color=colour, marker="o", markersize=4, label=f"{name}, deterministic")
            axes.scatter(steps[:1], recalls[:1], marker="D", s=36, color=colour, label=f"{name}, as served", zorder=3)
        axes.set_xscale("log", base=2)
        ticks = sorted({step for study in studies.values() for step in study["evaluations"]})
        axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.set_xlabel("network evaluations of one sampling")
        axes.set_ylabel("R@20")
        axes.legend(loc="best")
        save(figure, path)


def syncs(lifts: Mapping[str, Mapping[str, Sequence[Interval]]], panels: Sequence[str], label: str, path: Path) -> None:
    """A panel a metric: relative differences by how often what serves is synced, a colour a model; (model, sync)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.4), dpi=150, layout="constrained")
        for i, (axes, title) in enumerate(zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True)):
            for (model, intervals), colour, aside in zip(lifts.items(), (OTHER, LEAD), (-0.12, 0.12), strict=False):
                shown = [[100 * v for v in (each[i].value, each[i].low, each[i].high)] for each in intervals.values()]
                at = [place + aside for place in range(len(shown))]
                bars = [[value - low for value, low, _ in shown], [high - value for value, _, high in shown]]
                axes.errorbar(
                    at,
                    [s[0] for s in shown],
                    yerr=bars,
                    fmt="o",
                    markersize=4,
                    color=colour,
                    linewidth=1.2,
                    label=model,
                )
            axes.axhline(0, color=INK, linewidth=0.8)
            names = list(next(iter(lifts.values())))
            axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
            axes.grid(axis="y")
            axes.set_title(title, fontsize=9)
        figure.axes[0].set_ylabel(label)
        figure.axes[0].legend(loc="best")
        save(figure, path)


def axes_of(height: float) -> tuple[Figure, Axes]:
    """A picture of the page's width, `height` inches high."""
    figure = Figure(figsize=(WIDTH, height), dpi=150, layout="constrained")
    return figure, figure.add_subplot()


def _rows(axes: Axes, names: list[str]) -> dict[str, int]:
    """A horizontal place for each name, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return {name: place for place, name in enumerate(names)}


def _bars(axes: Axes, rows: Mapping[str, Interval], places: Mapping[str, int], label: str) -> None:
    values = [i.value for i in rows.values()]
    below = [i.value - i.low for i in rows.values()]
    above = [i.high - i.value for i in rows.values()]
    at = [places[name] for name in rows]
    axes.errorbar(values, at, xerr=[below, above], fmt="o", markersize=4, color=LEAD, linewidth=1.2, label=label)


def save(figure: Figure, path: Path) -> None:
    """Write a picture, in the format that the file's ending names, without a trace of when it was made."""
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
