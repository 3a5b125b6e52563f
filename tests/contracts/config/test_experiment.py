"""An experiment's file: what a person writes, what it means, and the sentence on each mistake."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.config.experiment import METRICS, Experiment, SettingsError, load_experiment, validated
from contracts.config.settings import dump, load
from tests.contracts.config.test_settings import sound

WRITTEN = """
name: t2diff-against-two-tower
hypothesis: T2Diff raises the effective view rate.
owner: recall
salt: t2diff-2026-03
layer: recall
slots: {from: 0.0, to: 0.5}
start: 2026-03-01T00:00:00+08:00
end: "2026-03-08T00:00:00+08:00"
day_offset: "+08:00"
arms:
  control: {weight: 1, model: two_tower}
  treatment: {weight: 1, model: t2diff}
control: control
holdout: {salt: "2026", share: 0.05}
ramp:
  - {from: 2026-03-01T00:00:00+08:00, share: 0.01}
  - {from: 2026-03-02T00:00:00+08:00, share: 1.0}
overrides:
  treatment: [17, 42]
metrics:
  - {name: evr, kind: ratio, columns: [effective_views, views], role: primary, minimum_effect: 0.005}
  - {name: usage, kind: mean, columns: [usage_s], role: guardrail}
  - {name: play_p90, kind: quantile, columns: [play_s], q: 0.9}
analysis: {kind: group-sequential, looks: [3, 5, 7], correction: bh}
"""


def mapping(**changes: Any) -> dict[str, Any]:
    return {**sound()["experiment"], "end_ms": 10_000, **changes}


def test_a_file_means_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(WRITTEN)
    found = load_experiment(tmp_path / "e.yaml")
    assert (found.start_ms, found.end_ms, found.day_offset_ms) == (1_772_294_400_000, 1_772_899_200_000, 28_800_000)
    assert (found.slots, found.days, found.testers) == ((0.0, 0.5), 7, {17, 42})
    assert [(step.from_ms - found.start_ms, step.share) for step in found.ramp] == [(0, 0.01), (86_400_000, 1.0)]
    assert [(metric.name, metric.role, metric.q) for metric in found.metrics][2] == ("play_p90", "diagnostic", 0.9)
    assert (found.analysis.looks, found.analysis.alpha, found.analysis.correction) == ((3, 5, 7), 0.05, "bh")


def test_the_manual_s_example_is_sound(tmp_path: Path) -> None:
    manual = Path(__file__).parents[3] / "docs" / "experiments.md"
    (tmp_path / "e.yaml").write_text(manual.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0])
    found = load_experiment(tmp_path / "e.yaml")
    assert set(found.model_fields_set) >= Experiment.model_fields.keys() - {
        "zone",
        "changes",
    }  # instead of day_offset; and in no file


def test_what_is_left_out_is_the_whole_layer_for_everyone_by_the_usual_metrics() -> None:
    found = validated(Experiment, mapping(), "e")
    assert (found.layer, found.slots, found.ramp, found.holdout, found.testers) == ("recall", (0, 1), (), None, set())
    assert found.metrics == METRICS
    assert found.analysis.kind == "fixed"


def test_settings_may_name_the_file_and_are_dumped_with_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(WRITTEN)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**sound(), "experiment": str(tmp_path / "e.yaml")}))
    settings = load(tmp_path / "s.yaml")
    assert settings.experiment == load_experiment(tmp_path / "e.yaml")
    dump(settings, tmp_path / "again.yaml")
    assert load(tmp_path / "again.yaml") == settings


def test_settings_that_name_a_file_that_is_wrong_say_which(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**sound(), "experiment": str(tmp_path / "e.yaml")}))
    with pytest.raises(SettingsError, match=r"Cannot read the experiment file .*e\.yaml: No such file"):
        load(tmp_path / "s.yaml")
    (tmp_path / "e.yaml").write_text("arms: 1")
    with pytest.raises(SettingsError, match=r"e\.yaml: "):
        load(tmp_path / "s.yaml")


def test_a_key_that_stands_twice_is_told(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(WRITTEN.replace("  treatment: {weight", "  control: {weight"))
    with pytest.raises(SettingsError, match="'control' stands twice in one mapping") as caught:
        load_experiment(tmp_path / "e.yaml")
    assert "\n" not in str(caught.value)


EVR = {"name": "evr", "kind": "ratio", "columns": ["a", "b"], "role": "primary"}


def capped(how: dict[str, Any]) -> dict[str, Any]:
    return {"metrics": [{**EVR, "winsorize": how}]}


@pytest.mark.parametrize("how", [{"at": 1200}, {"quantile": 0.999, "of": "pre"}])
@pytest.mark.parametrize("kind", ["fixed", "group-sequential", "confidence-sequence"])
def test_a_cap_that_is_known_before_the_start_goes_with_every_plan(kind: str, how: dict[str, Any]) -> None:
    found = Experiment(**mapping(**capped(how), analysis={"kind": kind}))
    (metric,) = found.metrics
    assert metric.winsorize is not None
    assert metric.model_dump(exclude_none=True)["winsorize"] == how


def test_a_metric_without_a_cap_is_written_as_if_there_were_none() -> None:
    """A collector's state has the plan that it began with: no cap must be no change of it."""
    found = Experiment(**mapping(metrics=[EVR, {**EVR, "name": "b", "role": "guardrail", "winsorize": {"at": 3}}]))
    bare, with_cap = (metric.model_dump(mode="json") for metric in found.metrics)
    assert "winsorize" not in bare
    assert with_cap["winsorize"] == {"quantile": None, "of": None, "at": 3.0}
    assert Experiment(**found.model_dump()) == found


@pytest.mark.parametrize(
    ("complaint", "changes"),
    [
        ("start '2026-03-01T00:00:00' is not a time with a zone", {"start": "2026-03-01T00:00:00"}),
        ("end 'soon' is not a time with a zone", {"end": "soon"}),
        ("start '5' is not a time with a zone", {"start": 5}),
        ("start and start_ms say the same", {"start": "2026-03-01T00:00:00Z", "start_ms": 0}),
        ("day_offset '600' is not an offset from UTC in quotes", {"day_offset": 600}),
        ("day_offset '-8' is not", {"day_offset": "-8"}),
        ("zone and day_offset both say where days are cut", {"day_offset": "+08:00", "zone": "Europe/Berlin"}),
        ("zone and day_offset_ms both say", {"day_offset_ms": 3_600_000, "zone": "Europe/Berlin"}),
        ("zone 'Berlin' is not the name of a time zone, such as Europe/Berlin", {"zone": "Berlin"}),
        ("day_offset 'Europe/Berlin' is not .* a zone by its name is given as zone", {"day_offset": "Europe/Berlin"}),
        ("as milliseconds 1772323200 is in 1970; are these seconds?", {"start": 1_772_323_200}),
        ("start_ms is in milliseconds, but 1772323200 is in 1970; are these seconds?", {"start_ms": 1_772_323_200}),
        ("start_ms is .* are these seconds?", {"start_ms": 1_772_323_200, "end_ms": 1_772_323_200 + 90 * 86_400}),
        ("start_ms is .* are these seconds?", {"start_ms": 1_772_323_200, "end_ms": 1_772_928_000_000}),
        ("start_ms is .* are these microseconds?", {"start_ms": 1_772_323_200_000_000}),
        ("end_ms is .* are these seconds?", {"start_ms": 1_772_323_200_000, "end_ms": 1_772_409_600}),
        ("end_ms is .* are these nanoseconds?", {"end_ms": 1_772_409_600 * 10**9}),
        ("begins outside .*: 1772323200 is in 1970", {"ramp": [{"from_ms": 1_772_323_200, "share": 0.1}]}),
        ("day_offset and day_offset_ms say the same", {"day_offset": "+08:00", "day_offset_ms": 0}),
        (
            "arms.a.weight: Input should be a finite number",
            {"arms": {"a": {"weight": float("inf"), "model": "t2diff"}}},
        ),
        ("salt 'ramp:x' begins with one of", {"salt": "ramp:x"}),
        ("salt 'layer:x' begins with one of", {"holdout": {"salt": "layer:x", "share": 0.1}}),
        ("holdout.share: ", {"holdout": {"salt": "h", "share": 1}}),
        ("slots must begin before they end, not 0.5 to 0.5", {"slots": [0.5, 0.5]}),
        ("slots: slots have from and to, not", {"slots": {"from": 0}}),
        ("slots.1: Input should be less than or equal to 1", {"slots": {"from": 0, "to": 1.5}}),
        ("ramp: the step to 0.1 begins outside", {"ramp": [{"from_ms": -1, "share": 0.1}]}),
        (
            "ramp: the share falls from 0.5 to 0.1, which drops users",
            {"ramp": [{"from_ms": 1, "share": 0.5}, {"from_ms": 2, "share": 0.1}]},
        ),
        ("ramp: each step must begin after", {"ramp": [{"from_ms": 1, "share": 0.1}, {"from_ms": 1, "share": 0.5}]}),
        ("ramp.0: from '1' is not a time", {"ramp": [{"from": 1, "share": 0.1}]}),
        ("overrides: 'z' is not among the arms", {"overrides": {"z": [1]}}),
        ("overrides: user 4 stands there twice", {"overrides": {"a": [4], "b": [3, 4]}}),
        ("metrics: exactly one must be primary, not .'evr', 'other'", {"metrics": [EVR, {**EVR, "name": "other"}]}),
        ("metrics: exactly one must be primary, not ", {"metrics": []}),
        ("metrics: a name stands twice", {"metrics": [EVR, {**EVR, "role": "guardrail"}]}),
        ("metrics.0: columns of 'evr' must be one column", {"metrics": [{**EVR, "kind": "mean"}]}),
        ("metrics.0: q of 'evr' goes with kind quantile", {"metrics": [{**EVR, "q": 0.5}]}),
        ("metrics.0: q of 'evr' goes", {"metrics": [{**EVR, "kind": "quantile", "columns": ["a"]}]}),
        ("metrics.0.columns.0: ", {"metrics": [{**EVR, "columns": ["a@0", "b"]}]}),
        ("metrics.0.winsorize: a cap has a quantile or a value .at., one of them", capped({})),
        ("metrics.0.winsorize: a cap has a quantile or a value", capped({"at": 3, "quantile": 0.9})),
        ("metrics.0.winsorize: of says what a quantile is of, and at 3 is a value", capped({"at": 3, "of": "pre"})),
        ("metrics.0.winsorize.of: ", capped({"quantile": 0.9, "of": "arm"})),
        ("metrics.0.winsorize.quantile: Input should be greater than 0.5", capped({"quantile": 0.5})),
        ("metrics.0.winsorize.quantile: Input should be less than 1", capped({"quantile": 1})),
        ("metrics.0.winsorize.at: Input should be greater than 0", capped({"at": 0})),
        ("metrics.0.winsorize.at: Input should be a finite number", capped({"at": float("inf")})),
        ("metrics.0.winsorize.below: there is no such setting", capped({"at": 3, "below": 1})),
        (
            "metrics.1: winsorize of 'q' goes with kind mean or ratio, not with quantile",
            {"metrics": [EVR, {"name": "q", "kind": "quantile", "columns": ["a"], "q": 0.9, "winsorize": {"at": 3}}]},
        ),
        *(
            (
                f"metrics: 'evr' is capped at a pooled quantile, which is not known at the looks of .* {kind}; cap",
                {**capped({"quantile": 0.9}), "analysis": {"kind": kind}},
            )
            for kind in ("group-sequential", "confidence-sequence")
        ),
        ("analysis: looks go with kind group-sequential", {"analysis": {"looks": [1]}}),
        ("analysis: looks .2, 1. must rise", {"analysis": {"kind": "group-sequential", "looks": [2, 1]}}),
        (
            "looks has day 9, but the experiment touches 1 day",
            {"analysis": {"kind": "group-sequential", "looks": [9]}},
        ),
        ("analysis.alpha", {"analysis": {"alpha": 0}}),
        ("analysis.alpha", {"analysis": {"alpha": 9e-16}}),
        ("analysis.alpha", {"analysis": {"alpha": math.nan}}),
        ("analysis.power", {"analysis": {"power": math.nan}}),
        ("power must be above alpha", {"analysis": {"power": 0.01}}),
        ("analysis.pooled: there is no such setting", {"analysis": {"pooled": True}}),
    ],
)
def test_each_mistake_is_named(complaint: str, changes: dict[str, Any]) -> None:
    data = mapping(**changes)
    for moment in ("start", "end"):
        if moment in changes and f"{moment}_ms" not in changes:
            del data[f"{moment}_ms"]
    with pytest.raises(SettingsError, match=complaint) as caught:
        validated(Experiment, data, "e.yaml")
    assert str(caught.value).startswith("e.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("arms:\n  on: {weight: 1}\n", "arms: YAML reads the name on as true or false; put it in quotes, 'on'"),
        ("arms:\n  a: {}\n  NO: {}\n", "arms: YAML reads the name NO as true or false; put it in quotes, 'NO'"),
        ("arms:\n  1: {}\n", "arms: YAML reads the name 1 as a number; put it in quotes, '1'"),
        ("arms:\n  1e3: {}\n  1.5: {}\n", "arms: YAML reads the name 1.5 as a number"),
        ("arms:\n  2026-03-01: {}\n", "arms: YAML reads the name 2026-03-01 as a timestamp"),
        ("arms:\n  ~: {}\n", "arms: YAML reads the name ~ as nothing"),
        ("overrides:\n  off: [1]\n", "overrides: YAML reads the name off as true or false"),
        ("metrics:\n  - {yes: 1}\n", "metrics.0: YAML reads the name yes as true or false"),
    ],
)
def test_a_name_that_yaml_does_not_read_as_text_is_named_and_quotes_are_asked_for(tmp_path, written, complaint) -> None:
    (tmp_path / "e.yaml").write_text(f"name: w\nsalt: w\n{written}")
    with pytest.raises(SettingsError) as raised:
        load_experiment(tmp_path / "e.yaml")
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"control": False}, "control: this is read as false (so are off and no), not as text; put it in quotes."),
        ({"salt": 2026}, "salt: this is read as 2026, not as text; put it in quotes."),
        ({"name": True}, "name: this is read as true (so are on and yes), not as text; put it in quotes."),
        ({"metrics": [{**EVR, "name": False}]}, "metrics.0.name: this is read as false"),
        ({"metrics": [{**EVR, "columns": [True, "b"]}]}, "metrics.0.columns.0: this is read as true"),
    ],
)
def test_a_name_given_without_quotes_as_a_value_is_refused_too(changes, complaint) -> None:
    with pytest.raises(SettingsError) as raised:
        validated(Experiment, mapping(**changes), "e")
    assert complaint in str(raised.value)


def test_words_that_are_no_names_may_be_true_or_false_and_merged_keys_stay(tmp_path) -> None:
    text = WRITTEN.replace("arms:", "x: &x {weight: 1}\narms:").replace(
        "{weight: 1, model: t2diff}", "{<<: *x, model: t2diff}"
    )
    (tmp_path / "e.yaml").write_text(text.replace("correction: bh", "correction: bh, cuped: off"))
    with pytest.raises(SettingsError, match="x: there is no such setting"):
        load_experiment(tmp_path / "e.yaml")
    (tmp_path / "e.yaml").write_text(WRITTEN.replace("correction: bh", "correction: bh, cuped: off"))
    assert load_experiment(tmp_path / "e.yaml").analysis.cuped is False


@pytest.mark.parametrize(
    ("zone", "start", "end", "days"),
    [
        ("Europe/Berlin", "2026-10-22T00:00:00+02:00", "2026-10-29T00:00:00+01:00", 7),
        ("Europe/Berlin", "2026-03-26T00:00:00+01:00", "2026-04-02T00:00:00+02:00", 7),
        ("America/New_York", "2026-10-30T00:00:00-04:00", "2026-11-06T00:00:00-05:00", 7),
        ("Asia/Tokyo", "2026-03-01T00:00:00+09:00", "2026-03-02T00:00:00+09:00", 1),
    ],
)
def test_days_of_a_zone_are_counted_by_its_own_clock(zone, start, end, days) -> None:
    given = {key: value for key, value in mapping(start=start, end=end, zone=zone).items() if not key.endswith("_ms")}
    found = validated(Experiment, given, "e")
    assert (found.days, found.day_of(found.start_ms), found.day_of(found.end_ms - 1)) == (days, 0, days - 1)
    assert found.day_of(found.end_ms) == days
    assert found.day_of(found.start_ms - 1) == -1
