"""Prometheus' own evaluator of rules, fed with what real registries showed.

`promtool test rules` takes series and a clock that begins at 0, and evaluates rules as a server would. Where it is not
on the PATH, `make servers` unpacks Debian's; a machine without either skips what needs it.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.deployed import RULES

CUMULATIVE = ("_total", "_bucket", "_count", "_sum")

Series = dict[str, float]  # `name{label="value",…}` → value


@dataclass(frozen=True)
class Scraped:
    """What one target showed. `text` None: it did not answer."""

    minute: int
    instance: str
    text: str | None
    now_s: float = 0.0  # Unix time of the scrape, where metrics tell Unix times


def promtool() -> str:
    """Its path; skips the test where there is none."""
    home = Path(os.environ.get("DRIFTLINE_PROMETHEUS_HOME") or Path.home() / ".driftline" / "prometheus")
    unpacked = home / "usr" / "bin" / "promtool"
    found = shutil.which("promtool") or (str(unpacked) if unpacked.exists() else None)
    if found is None:
        pytest.skip("there is no promtool: `make servers` unpacks Debian's, elsewhere it comes with Prometheus")
    return found


def series_of(scraped: Scraped) -> Series:
    """Its samples. Unix times are moved as the clock is: promtool's shows `minute` when they were scraped."""
    series: Series = {}
    for family in text_string_to_metric_families(scraped.text or ""):
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            labels = {**sample.labels, "job": "driftline", "instance": scraped.instance}
            value = sample.value
            if sample.name.endswith("_timestamp_seconds") and scraped.now_s:
                value += 60 * scraped.minute - scraped.now_s
            chosen = ",".join(f"{name}={json.dumps(text)}" for name, text in labels.items())
            series[f"{sample.name}{{{chosen}}}"] = value
    return series


def input_series(scrapes: Sequence[Scraped], minutes: int, *, grows: bool = False) -> list[dict[str, str]]:
    """Each series by the minute: what the last scrape of its target showed.

    `grows`: after a target's last scrape its counters go on as they did between its last two, a minute each: the cause
    lasts.
    """
    out = []
    for instance in dict.fromkeys(each.instance for each in scrapes):
        own = [each for each in scrapes if each.instance == instance]
        shown = [(each.minute, series_of(each)) for each in own]
        for name in dict.fromkeys(name for _, series in shown for name in series):
            values = [_at(shown, name, minute, grows=grows) for minute in range(minutes + 1)]
            out.append({"series": name, "values": " ".join("_" if v is None else repr(v) for v in values)})
    return out


def _at(shown: Sequence[tuple[int, Series]], name: str, minute: int, *, grows: bool) -> float | None:
    past = [(at, series) for at, series in shown if at <= minute]
    if not past:
        return None
    at, series = past[-1]
    value = series.get(name)
    cumulative = name.partition("{")[0].endswith(CUMULATIVE)
    if value is not None and grows and cumulative and len(past) == len(shown) > 1:
        value += (minute - at) * (value - shown[-2][1].get(name, 0.0))
    return value


def evaluate(
    directory: Path, series: Iterable[Mapping[str, str]], minutes: int, expected: Mapping[str, Sequence[str]]
) -> None:
    """See that expressions give, with the rules beside them, these label sets alone at `minutes`, each with value 1."""
    tests = [
        {
            "expr": expr,
            "eval_time": f"{minutes}m",
            "exp_samples": [{"labels": labels, "value": 1} for labels in label_sets],
        }
        for expr, label_sets in expected.items()
    ]
    test = {"interval": "1m", "input_series": [*series], "promql_expr_test": tests}
    content = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}
    path = directory / "rules.test.yaml"
    path.write_text(yaml.safe_dump(content, width=1_000_000))
    done = subprocess.run([promtool(), "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def assert_fires(
    directory: Path, scrapes: Sequence[Scraped], minutes: int, *alerts: str, grows: bool = False, since: int = 0
) -> None:
    """See that these alerts fire between two minutes, and no other does."""
    fired = f'group by (alertname) (max_over_time(ALERTS{{alertstate="firing"}}[{minutes - since}m]))'
    labels = [f'{{alertname="{alert}"}}' for alert in alerts]
    evaluate(directory, input_series(scrapes, minutes, grows=grows), minutes, {fired: labels})
