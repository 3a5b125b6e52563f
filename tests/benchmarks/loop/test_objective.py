"""The tables of the frontier, from weeks by hand, and one run of the whole command."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.loop.objective import CLASSES, by_length, frontier, lengths, main, policies, split
from contracts.config.settings import SettingsError, TrainerSettings
from evaluation.lab.results import Outcome
from evaluation.lab.shown import Shown

DURATIONS_MS = np.array([5_000, 7_000, 50_000, 300_000, 0])


def week(policy: str, views: list[int], play_s: list[int], effective: list[int], seed: int = 0) -> Outcome:
    """A week of two users, who had half of everything each; lists are by item of `DURATIONS_MS`."""
    shown = Shown(
        DURATIONS_MS, np.array(views), np.array(effective), 1000 * np.array(play_s),
        np.full(2, 500 * sum(play_s)), np.zeros(2, np.int64), overlap=1.0, pairs=4,
    )  # fmt: skip
    halves = (np.full((2, 1), sum(each) // 2) for each in (views, effective))
    return Outcome(policy, seed, True, np.arange(2), *halves, shown, (), 0, {}, {}, 0, 10, 1.0, 0.1)


SHORT = week("short", [10, 10, 20, 0, 0], [40, 60, 400, 0, 0], [6, 6, 8, 0, 0])
LONG = week("long", [0, 10, 20, 10, 0], [0, 60, 440, 300, 0], [0, 6, 8, 4, 0])


def test_what_is_shown_is_told_by_its_length_and_items_of_unknown_length_are_left_out() -> None:
    found = by_length(replace(SHORT, shown=replace(SHORT.shown, views=SHORT.shown.views + np.array([0, 0, 0, 0, 9]))))
    at = [CLASSES.index(name) for name in ("to 7 s", "to 60 s")]
    assert found.share[at].tolist() == [0.5, 0.5]
    assert found.evr[at].tolist() == [0.6, 0.4]
    assert found.play_s[at].tolist() == [5, 20]
    assert np.isnan(found.play_s).sum() == len(CLASSES) - 2


def test_a_difference_in_play_time_is_split_by_length() -> None:
    parts = split(LONG, SHORT)
    mix = -0.25 * (5 + 6) / 2 + 0.25 * 30
    within = (6 - 5) * (0.5 + 0.25) / 2 + (22 - 20) * 0.5
    assert parts.mix == pytest.approx(mix / 12.5)
    assert parts.within == pytest.approx(within / 12.5)
    assert parts.mix + parts.within == pytest.approx(LONG.rate("play_s") / SHORT.rate("play_s") - 1)


def test_policies_are_compared_with_the_first_one() -> None:
    again = [week("short", [20, 0, 20, 0, 0], [90, 0, 410, 0, 0], [10, 0, 10, 0, 0], 1), replace(LONG, seed=1)]
    one = frontier({"short": [SHORT], "long": [LONG]}).splitlines()
    assert one[2].startswith("| short | .5000 |  | 12.50 |  |")
    assert "-10.0% [-10.0%, -10.0%]" in one[3]
    assert "+60.0% [+60.0%, +60.0%]" in one[3]
    both = frontier({"short": [SHORT, again[0]], "long": [LONG, again[1]]}).splitlines()
    assert "± 0.0% |" in both[3]
    assert lengths({"short": [SHORT], "long": [LONG]}).splitlines()[3].endswith("| +49.0% | +11.0% |")


@pytest.mark.parametrize("pair", [(0.0, 0.0), (-1.0, 1.0), (1.0, float("nan"))])
def test_weights_that_cannot_be_wanted_are_refused(pair: tuple[float, float]) -> None:
    with pytest.raises(SettingsError) as caught:
        policies(["two_tower"], [pair], TrainerSettings())
    assert "\n" not in str(caught.value)


def test_the_command_compares_what_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "found.json"
    command = ["objective", "--quick", "--seeds", "1", "--json", str(file), "--wanted"]
    monkeypatch.setattr(sys, "argv", [*command, "1:0,0:1"])
    main()
    assert "two_tower 0:1" in capsys.readouterr().out
    content = json.loads(file.read_text())["synthetic"]
    assert [each["policy"] for each in content["weeks"]] == ["two_tower 1:0", "two_tower 0:1"]
    assert content["beside_the_first"]["play_s"][0]["relative"] != 0
    for wanted in ("1", "0:0", "1:x"):
        monkeypatch.setattr(sys, "argv", [*command, wanted])
        with pytest.raises(SystemExit):
            main()
        assert capsys.readouterr().err.splitlines()[-1].startswith("objective: error: ")
