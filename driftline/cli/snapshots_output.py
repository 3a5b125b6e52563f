"""How `driftline snapshots` says what lies there: tables, facts and JSON of entries and comparisons."""

from typing import TYPE_CHECKING, Any

import typer

from driftline import tables
from driftline.tables import age, size, utc

if TYPE_CHECKING:
    from contracts.config.store import Root
    from contracts.snapshots.canary import Trial
    from driftline.inspect.snapshots import Comparison, Entry


def listed(names: list[str]) -> str:
    """Names in a sentence.

    >>> listed(["a", "b"]), listed([])
    ('a, b', 'none')
    """
    return ", ".join(names) or "none"


def facts(root: "Root", entry: "Entry", items: dict[str, int] | None, now_ms: int) -> dict[str, str]:
    """All about an entry that can be read; `items` is None where its files are damaged."""
    from contracts.snapshots import retention

    manifest = entry.manifest
    assert manifest is not None
    base = f", the delta {entry.version.sequence} on {entry.version.base}" if entry.version.sequence else ", full"
    hold = retention.held(root, entry.model) if "held" in entry.states else None
    return {
        "snapshot": f"{entry.model}/{entry.version}{base}",
        "state": _states(entry) + (f" ({hold.reason})" if hold else ""),
        "written": f"{age(now_ms - entry.written_ms)} ago, {size(entry.size)}",
        "event time": f"{utc(manifest.event_time_ms)} UTC, of the newest example learned from",
        "learned from": f"{manifest.examples:,} examples" + (f", {manifest.learn_from}" if manifest.learn_from else ""),
        "shares": listed([_share(arm, count, manifest.examples) for arm, count in sorted(manifest.shares.items())]),
        "gate": _gate(manifest.gate),
        "trial": _trial(entry.trial),
        "items": "damaged: see `verify`"
        if items is None
        else listed([f"{count:,} {name}" for name, count in items.items()]),
        "tower": f"{manifest.dim} wide, the last {manifest.window} behaviours, sampling seed {manifest.sampling_seed}",
        "offsets": listed([f"{partition} {offset:,}" for partition, offset in sorted(manifest.offsets.items())]),
    } | {name: f"{value:.6g}" for name, value in sorted(manifest.metrics.items())}


def _share(arm: str, count: int, total: int) -> str:
    part = f" ({count / total:.1%})" if total else ""
    return f"{arm or 'outside any experiment'} {count:,}{part}"


def _gate(gate: dict[str, bool | float | str]) -> str:
    """The verdict in words.

    >>> _gate({"passed": False, "reason": "worse than v000009", "bound": -0.02})
    'rejected: worse than v000009 (bound -0.02)'
    >>> _gate({})
    'not gated'
    """
    if not gate:
        return "not gated"
    figures = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in gate.items()
        if name not in ("passed", "reason")
    ]
    verdict = f"{'passed' if gate.get('passed') else 'rejected'}: {gate.get('reason', 'no reason given')}"
    return verdict + (f" ({', '.join(figures)})" if figures else "")


def _trial(trial: "Trial | None") -> str:
    if trial is None:
        return "none has ended"
    return f"{'promoted' if trial.promoted else 'rolled back'}: {trial.reason}"


def _states(entry: "Entry") -> str:
    """What it is, in words: for which share of the requests it is on trial, and why it was rolled back."""
    said = {"on trial": f"on trial for {entry.share or 0:.0%}"}
    if not entry.version.sequence:
        said["rolled back"] = _trial(entry.trial)
    return listed([said.get(state, state) for state in entry.states])


def as_json(entry: "Entry", now_ms: int) -> dict[str, Any]:
    """An entry as one JSON object."""
    manifest = entry.manifest
    return {
        "model": entry.model,
        "version": str(entry.version),
        "kind": entry.kind,
        "states": list(entry.states),
        "share": entry.share,
        "trial": entry.trial._asdict() if entry.trial else None,
        "problem": entry.problem,
        "examples": manifest.examples if manifest else None,
        "event_time_ms": manifest.event_time_ms if manifest else None,
        "recall@100": entry.recall,
        "size": entry.size,
        "age_s": (now_ms - entry.written_ms) / 1000,
    }


def show_table(shown: list["Entry"], now_ms: int) -> None:
    """Print entries, a row each."""
    from rich.text import Text

    columns = {"model": False, "version": False, "kind": False, "state": False, "examples": True}
    columns |= {"event time (UTC)": False, "recall@100": True, "size": True, "age": True}
    table = tables.table(columns, wraps=["state"])
    for each in shown:
        manifest = each.manifest
        cells = [
            each.model,
            str(each.version),
            each.kind,
            _states(each) if each.states else "",
            f"{manifest.examples:,}" if manifest else "",
            utc(manifest.event_time_ms) if manifest else "",
            "" if each.recall is None else f"{each.recall:.4f}",
            size(each.size),
            age(now_ms - each.written_ms),
        ]
        table.add_row(*(Text(cell) for cell in cells))
    tables.show(table)


def show_comparison(names: list[str], comparison: "Comparison", sizes: list[int]) -> None:
    """Print how the second snapshot differs from the first; `sizes` of both in bytes."""
    from rich.text import Text

    table = tables.table({"": False, names[0]: True, names[1]: True, "change": True})
    rows = {"items": [f"{count:,}" for count in comparison.items] + [f"+{comparison.added:,} -{comparison.removed:,}"]}
    rows["size"] = [*map(size, sizes), f"{sizes[1] / sizes[0] - 1:+.1%}"]
    for name, (before, after) in comparison.metrics.items():
        change = f"{after - before:+.4g}" if before is not None and after is not None else ""
        rows[name] = ["" if value is None else f"{value:.6g}" for value in (before, after)] + [change]
    for name, cells in rows.items():
        table.add_row(*(Text(cell) for cell in (name, *cells)))
    tables.show(table)
    both = comparison.items[1] - comparison.added
    movement = ", ".join(
        f"{'max' if q == 1 else f'p{100 * q:g}'} {value:.3g}" for q, value in comparison.movement.items()
    )
    typer.echo(
        f"{comparison.moved:,} of {both:,} vectors have moved"
        + (f"; relative movement {movement}." if movement else ".")
    )
