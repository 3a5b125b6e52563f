"""The sections of `docs/reproduction.md`, each from stored results alone; a section's key is what notes refer to."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from contracts.config.settings import ModelSettings
from evaluation import grid, pictures, published
from evaluation.fit import Plan
from evaluation.markdown import Section
from evaluation.metrics import Interval, spread
from evaluation.movielens import Order
from evaluation.named import POPULAR_DAYS
from evaluation.results import Result
from evaluation.tables import difference, estimate, short, with_bounds
from evaluation.tasks import BASELINES, Protocol, Study, Task

CONTROL = "two_tower"
BLIND = "t2diff-without-guess"
PAPER_SHOWN = ("recall@2", "recall@20")
SMALL, WIDE = grid.SMALL_SHAPE.dim, grid.WIDE_SHAPE.dim
NAMES = {"recall@10": "HR@10"}
MEANT = {"recall": "R", "mrr": "MRR", "ndcg": "NDCG"}


@dataclass(frozen=True)
class Archive:
    """All results, to be asked for."""

    results: list[Result]

    def seeds(
        self,
        protocol: Protocol,
        label: str,
        order: Order = "time",
        shape: ModelSettings = grid.SMALL_SHAPE,
        study: Study | None = None,
    ) -> list[Result]:
        """The runs of one row of the grid by seed; none where it was not run."""
        wanted = replace(grid.make(protocol, label, order, 0, shape, Plan()), study=study)
        return sorted((r for r in self.results if r.task.row == wanted.row), key=lambda r: r.task.seed)


def sections(archive: Archive) -> list[Section]:
    """All sections, in the page's order."""
    return [
        table_2(archive, "file"),
        table_2(archive, "time"),
        wide(archive),
        table_3(archive),
        table_4(archive),
        few_steps(archive),
        figure_4(archive),
        leave_one_out(archive),
        progressive(archive),
        backfilled(archive),
        packed(archive),
    ]


def table_2(archive: Archive, order: Order) -> Section:
    """All models at the paper's size, by its own split."""
    runs = {name: archive.seeds("official", name, order) for name in (*BASELINES, *grid.TABLE_2)}
    metrics = ("recall@2", "recall@20", "mrr@2", "mrr@20")
    rows = [
        (name, *_published(published.TABLE_2.get(name)), *_estimates(seeds, metrics), _seeds(seeds, "recall@20"))
        for name, seeds in runs.items()
        if seeds
    ]
    whole = published.TABLE_2["t2diff-paper"].figures
    paper = {name: row.figures["recall@20"] for name, row in published.TABLE_2.items()}
    caption = {
        "file": "The authors' 1,208 test instances, in the order of `ratings.dat`, which is not that of time: all "
        "users share it, and a Markov chain that knows no user finds most of it. "
        f"The paper's MRR@2 and MRR@20 of T2Diff are {short(whole['mrr@2'])} and {short(whole['mrr@20'])}.",
        "time": "The same users and the same rule in true time order. The paper's figures are of file order; they "
        "stand here to be seen beside.",
    }[order]
    return Section(
        f"table-2-{order}",
        f"Table 2, {order} order",
        caption,
        ("model", *_paper(PAPER_SHOWN), *map(_title, metrics), "seeds ±"),
        rows,
        *_rest(runs),
        command=f"official-{order}/*",
        draw=(lambda path: pictures.estimates(_intervals(runs, "recall@20"), paper, "R@20", path)) if rows else None,
    )


def wide(archive: Archive) -> Section:
    """The authors' split with more room than theirs."""
    runs = {name: archive.seeds("official", name, "file", grid.WIDE_SHAPE) for name in grid.WIDE}
    metrics = ("recall@2", "recall@20", "mrr@2", "mrr@20")
    chains = {name: archive.seeds("official", name, "file") for name in ("markov", "markov-window", "markov+ease")}
    rows = [(name, *_estimates(s, metrics), _megabytes(s)) for name, s in (chains | runs).items() if s]
    return Section(
        "wide",
        f"File order at d = {WIDE}",
        "As Table 2 in file order, at the width that the product uses.",
        ("model", *map(_title, metrics), "MB"),
        rows,
        *_rest(chains | runs),
        command=f"official-file/*-d{WIDE}-*",
    )


def table_3(archive: Archive) -> Section:
    """Schedules of β."""
    shapes = {k: grid.SMALL_SHAPE.model_copy(update={"diffusion_schedule": k}) for k in grid.TABLE_3}
    runs = {k: archive.seeds("official", "t2diff-paper", "file", shape) for k, shape in shapes.items()}
    metrics = ("recall@2", "recall@20", "mrr@20")
    rows = [
        (kind, *_published(published.TABLE_3[kind]), *_estimates(seeds, metrics), _seeds(seeds, "recall@20"))
        for kind, seeds in runs.items()
        if seeds
    ]
    return Section(
        "table-3",
        "Table 3: the schedule of β",
        "`t2diff-paper` in file order at the paper's size. The paper prints no formulas for `linear` and `log`; ours "
        "are in `trainer.models.diffusion.betas`.",
        ("β", *_paper(PAPER_SHOWN), *map(_title, metrics), "seeds ±"),
        rows,
        *_rest({str(k): v for k, v in runs.items()}),
        command=f"official-file/t2diff-paper-d{SMALL}-*",
    )


def table_4(archive: Archive) -> Section:
    """Numbers of steps."""
    shapes = {steps: grid.SMALL_SHAPE.model_copy(update={"diffusion_steps": steps}) for steps in grid.TABLE_4}
    runs = {k: archive.seeds("official", "t2diff-paper", "file", shape) for k, shape in shapes.items()}
    metrics = ("recall@2", "recall@20")
    rows = [
        (
            str(steps),
            *_published(published.TABLE_4[steps]),
            *_estimates(seeds, metrics),
            f"{published.TABLE_4[steps].ms:.2f}",
            *(f"{min(r.inference_ms[batch] for r in seeds):.2f}" for batch in sorted(seeds[0].inference_ms)),
        )
        for steps, seeds in runs.items()
        if seeds
    ]
    return Section(
        "table-4",
        "Table 4: the number of steps T",
        "`t2diff-paper` in file order at the paper's size. Milliseconds are per sample: the paper's on a Tesla T4, "
        "ours for a user alone and in a batch of 64, with the scores of all items.",
        ("T", *_paper(PAPER_SHOWN), *map(_title, metrics), "paper ms", "ms alone", "ms in 64"),
        rows,
        *_rest({f"T = {k}": v for k, v in runs.items()}),
        command=f"official-file/t2diff-paper-d{SMALL}-*",
    )


def few_steps(archive: Archive) -> Section:
    """Recall by the number of network evaluations."""
    models = ("t2diff-paper", "t2diff")
    runs = {m: archive.seeds("official", m, "file", study="sampling")[:1] for m in models}
    studies = {m: seeds[0].study for m, seeds in runs.items() if seeds}
    rows = []
    for name, seeds in runs.items():
        for result in seeds:
            cells = list(zip(*(result.study[k] for k in ("evaluations", "recall@20", "ms")), strict=True))
            whole = cells[-1][1]
            for place, (evaluations, recall, ms) in enumerate(cells):
                how = "as served" if place == 0 else "deterministic"
                against = f"{100 * (recall / whole - 1):+.2f} %" if whole else "-"
                rows.append((name, how, f"{evaluations:.0f}", short(recall), against, f"{ms:.3f}"))
    return Section(
        "few-steps",
        "Few-step sampling",
        "Network evaluations of one sampling, on the same weights. The paper takes all steps with fresh noise; "
        "deterministic steps (DDIM, η = 0; Song et al., ICLR 2021) may be left out.",
        ("model", "way", "evaluations", "R@20", "against all, deterministic", "ms in 512"),
        rows,
        *_rest(runs),
        command="official-file/*-sampling-*",
        draw=(lambda path: pictures.samplings(studies, path)) if studies else None,
    )


def figure_4(archive: Archive) -> Section:
    """Where the restored drifts point."""
    seeds = archive.seeds("official", "t2diff-paper", "file", study="cosine")[:1]
    rows = []
    for result in seeds:
        course = list(zip(*(result.study[k] for k in ("step", "all", "last")), strict=True))
        shown = sorted({round(i * (len(course) - 1) / 5) for i in range(6)})
        rows = [(f"{course[i][0]:.0f}", f"{course[i][1]:.3f}", f"{course[i][2]:.3f}") for i in shown]
    return Section(
        "figure-4",
        "Figure 4: ẑ₀ on the way",
        "Cosine similarity of the restored drift ẑ₀ with the true z₀ at each step of the reverse process, on the "
        "test queries: the mean over all behaviours, as the paper draws it, and the last behaviour alone. All drifts "
        "but the last are in the condition already; the last is the only one that has to be guessed.",
        ("step r", "all drifts", "the last drift"),
        rows,
        *_rest({"the cosine study of t2diff-paper": seeds}),
        command="official-file/*-cosine-*",
        draw=(lambda path: pictures.cosines(seeds[0].study, path)) if seeds else None,
    )


def leave_one_out(archive: Archive) -> Section:
    """Time order, all users."""
    names = (*BASELINES, *grid.SHORT, *grid.LONG)
    runs = {name: archive.seeds("leave-one-out", name, "time", grid.LONG_SHAPE) for name in names}
    metrics = ("recall@10", "ndcg@10", "recall@20", "mrr@20")
    ours = runs["t2diff"]
    rows: list[tuple[str, ...]] = [
        (f"{name}, published", *(short(row.figures[m]) if m in row.figures else "" for m in metrics), "", "", "")
        for name, row in published.LEAVE_ONE_OUT.items()
    ]
    for name, seeds in runs.items():
        if seeds:
            ahead = difference(ours, seeds, "ndcg@10") if ours and name != "t2diff" else None
            rows.append((name, *_estimates(seeds, metrics), _covered(seeds), _budget(seeds), _relative(ahead)))
    return Section(
        "leave-one-out",
        "Leave-one-out in time order",
        "All 6,040 users of MovieLens-1M: the last behaviour tests, the one before it validates; all items compete but "
        "those that the user had rated. Baselines count the validation behaviours, too; networks do not learn from "
        "them. The last column is the relative difference of `t2diff`'s NDCG@10 to the row's, paired by user. "
        "Published rows: Zhai et al., ICML 2024.",
        ("model", *map(_title, metrics), "coverage@20", "trained s (epochs)", "t2diff against it"),
        rows if any(runs.values()) else [],
        *_rest(runs),
        command="leave-one-out-time/*",
    )


def progressive(archive: Archive) -> Section:
    """The stream."""
    return _stream(
        archive,
        "progressive",
        (*BASELINES, *grid.STREAM, *grid.ABLATIONS),
        "KuaiRand-Pure as a stream",
        "Every effective view is foreseen with all that came before it (what users did before the log, too), and then "
        "learned from; those of 2022-05-02 to 05-08 count. What a user had been shown does not compete. Baselines "
        f"count anew at each midnight, popularity over the last {POPULAR_DAYS} days. The last column is the relative "
        "difference of R@20 to the two-tower that learns at the same places, paired by user; that of baselines and of "
        "two-towers is to the two-tower that learns at the last place.",
    )


def backfilled(archive: Archive) -> Section:
    """The stream, after a backfill."""
    return _stream(
        archive,
        "backfilled",
        grid.BACKFILLED,
        "The same stream after a backfill",
        "As above, but what users did before the log is not history alone: every model has first learned from it, one "
        "example an effective view, in the order that the file gives.",
    )


def packed(archive: Archive) -> Section:
    """The stream, after a backfill of packed histories."""
    return _stream(
        archive,
        "packed",
        grid.PACKED,
        "The same stream after a packed backfill",
        "As above, but what users did before the log is learned from a few windows a user, each behaviour a target "
        "once (`evaluation/packed.py`), whatever the places that the model learns at in the stream. Seconds are those "
        "of the backfill alone.",
    )


def _stream(archive: Archive, protocol: Protocol, names: tuple[str, ...], title: str, intro: str) -> Section:
    runs = {name: archive.seeds(protocol, name, "time", grid.STREAM_SHAPE) for name in names}
    metrics = ("recall@20", "recall@100", "ndcg@10")
    controls = {
        name: control
        for name, seeds in runs.items()
        if seeds and name != CONTROL and (control := _control(seeds[0].task, runs))
    }
    ahead = {name: difference(runs[name], control, "recall@20") for name, control in controls.items()}
    rows = [
        (
            name,
            _places(seeds[0].task),
            *_estimates(seeds, metrics),
            _seeds(seeds, "recall@20"),
            _backfill(seeds),
            _relative(ahead.get(name)),
            _relative(_guess(seeds, runs.get(name.replace("t2diff", BLIND, 1), []))),
        )
        for name, seeds in runs.items()
        if seeds
    ]
    return Section(
        protocol,
        title,
        intro,
        ("model", "learns at", *map(_title, metrics), "seeds ±", "backfill s", "against two_tower", "the guess adds"),
        rows,
        *_rest(runs),
        command=f"{protocol}-time/*",
        draw=(lambda path: pictures.differences(ahead, "R@20 against the two-tower, %", path)) if ahead else None,
    )


def _control(task: Task, runs: Mapping[str, list[Result]]) -> list[Result]:
    """The two-tower that learns at the same places; of those that do not, and of two-towers, the one at the last."""
    last = runs[CONTROL]
    if not task.trains or task.model == CONTROL:
        return last
    same = [
        seeds for seeds in runs.values() if seeds and seeds[0].task.model == CONTROL and _agree(seeds[0].task, task)
    ]
    return same[0] if same else []


def _guess(whole: list[Result], blind: list[Result]) -> Interval | None:
    """What T2Diff gains by its guess at the next behaviour, relative to the same without it."""
    is_whole = whole[0].task.model == "t2diff" and not whole[0].task.settings.ablate
    return difference(whole, blind, "recall@20") if is_whole and blind else None


def _agree(one: Task, other: Task) -> bool:
    return _places(one) == _places(other)


def _places(task: Task) -> str:
    """Where a model learns, as a table says it.

    >>> four = grid.make("packed", "t2diff-at-last-4", "time", 0, ModelSettings(), Plan())
    >>> _places(four), _places(Task("official", "ease"))
    ('last 4', '')
    """
    return task.places.replace("-", " ") if task.trains else ""


def _backfill(seeds: list[Result]) -> str:
    taken = [r.study["backfill_s"][0] for r in seeds if "backfill_s" in r.study]
    return f"{sum(taken) / len(taken):.0f}" if taken else ""


def _title(metric: str) -> str:
    """How a column of a metric is called.

    >>> _title("recall@10"), _title("mrr@2")
    ('HR@10', 'MRR@2')
    """
    name, _, k = metric.partition("@")
    return NAMES.get(metric, f"{MEANT[name]}@{k}")


def _paper(metrics: tuple[str, ...]) -> list[str]:
    return [f"paper {_title(metric)}" for metric in metrics]


def _published(row: published.Published | None) -> list[str]:
    return [short(row.figures[m]) if row else "" for m in PAPER_SHOWN]


def _estimates(seeds: list[Result], metrics: tuple[str, ...]) -> list[str]:
    return [with_bounds(estimate(seeds, metric)) for metric in metrics]


def _intervals(runs: Mapping[str, list[Result]], metric: str) -> dict[str, Interval]:
    return {name: estimate(seeds, metric) for name, seeds in runs.items() if seeds}


def _seeds(seeds: list[Result], metric: str) -> str:
    """How far seeds are apart, and how many there are."""
    if len(seeds) < 2:
        return ""
    return f"{short(spread([r.values(metric).tolist() for r in seeds]))} of {len(seeds)}"


def _relative(lift: Interval | None) -> str:
    if lift is None:
        return ""
    return f"{100 * lift.value:+.1f} % ({100 * lift.low:+.1f} to {100 * lift.high:+.1f})"


def _covered(seeds: list[Result]) -> str:
    coverages = [r.coverage for r in seeds if r.coverage is not None]
    return short(sum(coverages) / len(coverages)) if coverages else ""


def _budget(seeds: list[Result]) -> str:
    if not seeds[0].task.trains:
        return ""
    return ", ".join(f"{r.training_s:,.0f} ({r.best_epoch} of {r.epochs})" for r in seeds)


def _megabytes(seeds: list[Result]) -> str:
    return f"{seeds[0].parameter_bytes / 1e6:.2f}"


def _rest(runs: Mapping[str, list[Result]]) -> tuple[list[Result], list[str]]:
    """All results of a section, and the names of its rows that were not run."""
    return [r for seeds in runs.values() for r in seeds], [name for name, seeds in runs.items() if not seeds]
