"""What is public stays: names, and what each takes."""

import inspect
import subprocess
import sys

import pytest

import abtest

TAKES = {
    "aa": "frame, plan, replicates=1000, seed=0",
    "analyse": "frame, plan, before=None",
    "assign": "plan, users, at=None",
    "plan_power": ("plan, frame=None, users_per_day=None, days=None, effect=None, mean=None, sd=None, rate=None"),
}
MEMBERS = {
    "AA": {"levels", "to_frame", "to_json", "trusted", "verdicts"},
    "PowerPlan": {"days", "experiment", "rows", "source", "to_frame", "to_json"},
    "Report": {
        "context", "result", "to_frame", "to_html", "to_json", "to_markdown", "verdicts", "write",
    },
}  # fmt: skip


def test_the_public_names_are_these():
    assert sorted(abtest.__all__) == sorted([*TAKES, *MEMBERS, "DataError", "SettingsError"])
    assert all(getattr(abtest, name) is not None for name in abtest.__all__)
    assert set(abtest.__all__) <= set(dir(abtest))


def parameters(function) -> str:
    """Names, kinds and defaults; how annotations are printed is Python's own."""
    found = inspect.signature(function).parameters.values()
    return ", ".join(str(each.replace(annotation=inspect.Parameter.empty)) for each in found)


def test_each_takes_what_it_took():
    assert {name: parameters(getattr(abtest, name)) for name in TAKES} == TAKES


def test_what_a_report_has_stays():
    for name, members in MEMBERS.items():
        assert {each for each in vars(getattr(abtest, name)) if not each.startswith("_")} | set(
            getattr(abtest, name).__dataclass_fields__
        ) == members


def test_the_function_is_the_wing_as_well():
    import abtest.analyse.analysis

    assert callable(abtest.analyse)
    assert abtest.analyse.analysis is sys.modules["abtest.analyse.analysis"]


def test_who_needs_the_assignment_alone_loads_no_statistics():
    heavy = ("scipy", "pandas", "ibis", "pyarrow", "jinja2")
    code = f"import sys, abtest.assignment.assign; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_what_is_not_there_is_said():
    with pytest.raises(AttributeError, match="module 'abtest' has no attribute 'analyze'"):
        _ = abtest.analyze
