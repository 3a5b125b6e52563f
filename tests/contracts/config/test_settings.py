"""Bad settings stop at start, with one sentence."""

from pathlib import Path
from typing import Any

import pytest

from contracts.config.settings import ModelSettings, SettingsError, TrainerSettings, dump, load, parse


def sound() -> dict[str, Any]:
    return {
        "kafka": {"bootstrap_servers": "127.0.0.1:9092"},
        "feature_repo": "repo",
        "snapshots": "snapshots",
        "state": "state",
        "experiment": {
            "name": "e",
            "salt": "s",
            "start_ms": 0,
            "end_ms": 10,
            "arms": {"a": {"weight": 1, "model": "two_tower"}, "b": {"weight": 1, "model": "t2diff"}},
            "control": "a",
        },
    }


def test_what_was_dumped_loads_again(tmp_path: Path) -> None:
    settings = parse(sound())
    dump(settings, tmp_path / "s.yaml")
    assert load(tmp_path / "s.yaml") == settings


def test_each_mistake_is_named() -> None:
    def broken(change: dict[str, Any], section: str | None = None) -> dict[str, Any]:
        data = sound()
        (data if section is None else data.setdefault(section, {})).update(change)
        return data

    def regimes(variants: dict[str, Any], **choice: Any) -> dict[str, Any]:
        return broken({"regimes": {"variants": variants, **choice}}, "trainer")

    cases = {
        "experiment: .*two arms": broken({"arms": {"a": {"weight": 1, "model": "two_tower"}}}, "experiment"),
        "control arm 'z'": broken({"control": "z"}, "experiment"),
        "end_ms must be after": broken({"end_ms": 0}, "experiment"),
        "stream.session_gap_ms": broken({"session_gap_ms": 0}, "stream"),
        "there is no such setting": regimes({"quick": {"model": {"learning_rat": 0.1}}}),
        "regimes.variants.quick.replay: batches": regimes({"quick": {"replay": {"batches": -1}}}),
        "regimes.variants.quick: dim is the same for all": regimes({"quick": {"model": {"dim": 8}}}),
        "regimes.variants.quick: window is the same for all": regimes({"quick": {"model": {"window": 8}}}),
        "regimes.variants.quick: it changes nothing": regimes({"quick": {"average": 0.0}}),
        "regimes.variants.again: it is the same as bare": regimes(
            {
                "bare": {"model": {"without": ["guess", "waits"]}},
                "again": {"model": {"without": ["waits", "guess", "waits"]}},
            }
        ),
        "regimes.variants.same: it is the same as quick": regimes(
            {"quick": {"average": 0.5}, "same": {"average": 0.5}}
        ),
        "trainer.models": broken({"models": []}, "trainer"),
        "models: t2diff is named twice": broken({"models": ["t2diff", "two_tower", "t2diff"]}, "trainer"),
        "regimes.variants.default: the trainer's own": regimes({"default": {"average": 0.5}}),
        "trainer.regimes.share": regimes({}, share=0),
        "trainer.regimes.lead": regimes({}, lead=0),
        "trainer.model: learn_at is last-k, which needs learn_at_last": broken(
            {"model": {"learn_at": "last-k"}}, "trainer"
        ),
        "trainer.model: learn_at_last is 33, beyond the window, which is 32": broken(
            {"model": {"learn_at": "last-k", "learn_at_last": 33}}, "trainer"
        ),
        "trainer.model: learn_at_last is 4, which learn_at: every does not use": broken(
            {"model": {"learn_at": "every", "learn_at_last": 4}}, "trainer"
        ),
        "trainer.model.learn_at_last": broken({"model": {"learn_at": "last-k", "learn_at_last": 0}}, "trainer"),
        "trainer: model.learn_at: every does not go with t2diff-paper": broken(
            {"models": ["t2diff-paper"], "model": {"learn_at": "every"}}, "trainer"
        ),
        "regimes.variants.default-last-4.model.learn_at: last-k does not go with diffurec": broken(
            {"models": ["diffurec"], "model": {"learn_at": "auto"}}, "trainer"
        ),
        "trainer: regimes.variants.default-last-4.model: learn_at_last is 4, beyond the window, which is 3": broken(
            {"model": {"learn_at": "auto", "window": 3}}, "trainer"
        ),
        "trainer.regimes.variants": broken({"model": {"learn_at": "auto"}, "regimes": {"variants": 3}}, "trainer"),
        "trainer.regimes.variants.b.model": broken(
            {"model": {"learn_at": "auto"}, "regimes": {"variants": {"b": {"model": 3}}}}, "trainer"
        ),
        "trainer.regimes.variants.a": broken(
            {"model": {"learn_at": "auto"}, "regimes": {"variants": {"a": 3}}}, "trainer"
        ),
        "regimes.variants.more.model.learn_at: last-k does not go with diffurec": broken(
            {
                "models": ["diffurec"],
                "regimes": {"variants": {"more": {"model": {"learn_at": "last-k", "learn_at_last": 4}}}},
            },
            "trainer",
        ),
        "regimes.variants.more.model: learn_at is last-k, which needs": regimes(
            {"more": {"model": {"learn_at": "last-k"}}}
        ),
        "unknown_thing": broken({"unknown_thing": 1}),
        "trainer.objective.play": broken({"objective": {"play": -1}}, "trainer"),
        "trainer.objective.follow": broken({"objective": {"follow": float("nan")}}, "trainer"),
        "trainer.objective.effective_view": broken({"objective": {"effective_view": float("inf")}}, "trainer"),
        "trainer.objective.play_cap_ms": broken({"objective": {"play_cap_ms": 0}}, "trainer"),
        "trainer.objective: effective_view and play are both 0": broken(
            {"objective": {"effective_view": 0, "follow": 1}}, "trainer"
        ),
        "serving.port": broken({"port": 70000}, "serving"),
    }
    for complaint, data in cases.items():
        with pytest.raises(SettingsError, match=complaint) as caught:
            parse(data)
        assert "\n" not in str(caught.value)


def test_weighted_training_needs_an_arm_and_a_loss_of_each_example() -> None:
    for models, complaint in ((["sasrec"], "serve sasrec, and none does"), (["contrastvae"], "none does")):
        with pytest.raises(SettingsError, match=complaint):
            parse(sound() | {"trainer": {"models": models, "learn_from": "weighted"}})
    data = sound() | {"trainer": {"models": ["contrastvae"], "learn_from": "weighted"}}
    data["experiment"]["arms"]["b"]["model"] = "contrastvae"
    with pytest.raises(SettingsError, match="does not go with contrastvae") as caught:
        parse(data)
    assert "\n" not in str(caught.value)
    assert parse(sound() | {"trainer": {"learn_from": "weighted"}}).trainer.learn_from == "weighted"


def test_an_objective_needs_a_loss_of_each_example() -> None:
    trainer = {"models": ["two_tower", "contrastvae"], "objective": {"play": 1}}
    with pytest.raises(SettingsError, match=r"trainer\.objective does not go with contrastvae") as caught:
        parse(sound() | {"trainer": trainer})
    assert "\n" not in str(caught.value)
    for objective in ({}, {"effective_view": 2}):  # all examples count alike
        parse(sound() | {"trainer": trainer | {"objective": objective}})


def test_a_setting_that_stands_there_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("serving:\n  token_file: secret\n  max_k: 5\n  token_file: null\n")
    with pytest.raises(SettingsError, match=r"'token_file' stands twice in one mapping.*line 4"):
        load(path)


def test_a_missing_or_garbled_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Cannot read the settings file"):
        load(tmp_path / "absent.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(SettingsError, match="not valid YAML"):
        load(tmp_path / "bad.yaml")


@pytest.mark.parametrize("key", ["without", "ablate"])
def test_parts_to_leave_out_are_read_by_either_name_and_written_as_files_have_had_them(key: str) -> None:
    model = ModelSettings.model_validate({key: ["waits"]})
    assert model == ModelSettings(ablate=("waits",))
    assert model.model_dump(mode="json")["without"] == ["waits"]
    assert list(TrainerSettings(model=model).model_dump(mode="json")["model"]) == [
        *(name for name in ModelSettings.model_fields if name not in ("ablate", "learn_at_last")),
        "without",
    ], "a checkpoint's fingerprint is what it was"


def test_places_that_the_stream_is_to_choose_are_regimes() -> None:
    pages = {"pages": {"model": {"page_loss": 1.0}}, "every": {"model": {"learn_at": "every"}}}
    settings = TrainerSettings.model_validate({"model": {"learn_at": "auto"}, "regimes": {"variants": pages}})
    found = {name: (each.model.page_loss, each.model.learn_at) for name, each in settings.by_regime().items()}
    assert found == {
        "default": (0.0, "last"),
        "pages": (1.0, "last"),
        "every": (0.0, "every"),
        "default-last-4": (0.0, "last-k"),
        "pages-last-4": (1.0, "last-k"),
    }
    assert TrainerSettings.model_validate(settings.model_dump(mode="json")) == settings
    own = {"default-last-4": {"model": {"learn_at": "every"}}}
    settings = TrainerSettings.model_validate({"model": {"learn_at": "auto"}, "regimes": {"variants": own}})
    assert settings.by_regime()["default-last-4"].model.learn_at == "every", "a regime that the user has named stays"


def test_regimes_may_differ_in_where_they_learn() -> None:
    variants = {"four": {"model": {"learn_at": "last-k", "learn_at_last": 4}}, "all": {"model": {"learn_at": "every"}}}
    regimes = TrainerSettings.model_validate({"regimes": {"variants": variants}}).by_regime()
    assert [(each.model.learn_at, each.model.learn_at_last) for each in regimes.values()] == [
        ("last", None), ("last-k", 4), ("every", None)
    ]  # fmt: skip


def test_a_port_that_other_machines_reach_is_protected_or_meant_to_be_open(tmp_path: Path) -> None:
    def serving(**settings: Any) -> bool:
        return parse(sound() | {"serving": settings}).serving.unprotected

    for host in ("0.0.0.0", "::", "[::]", "10.1.2.3", "recall.example.org"):  # noqa: S104
        with pytest.raises(
            SettingsError, match="neither tls nor a token_file; set one, or unprotected: true"
        ) as caught:
            serving(host=host)
        assert "\n" not in str(caught.value)
        assert serving(host=host, unprotected=True)
        assert not serving(host=host, token_file="f")  # noqa: S106
        assert not serving(host=host, tls={"certificate": "c.pem", "key": "k.pem"})
    for host in ("127.0.0.1", "localhost", "::1", "[::1]"):
        assert not serving(host=host)


def test_users_are_kept_for_as_long_as_feedback_on_what_they_saw_may_come() -> None:
    kept = parse(sound() | {"retention": {"users_ms": 86_400_000, "topics_ms": {"feedback": 3_600_000}}}).retention
    assert (kept.users_ms, kept.of_topics) == (86_400_000, {"feedback": 3_600_000})
    assert parse(sound()).retention.users_ms is None
    with pytest.raises(SettingsError, match=r"retention\.users_ms is 3600000, and feedback on what a user was shown"):
        parse(sound() | {"retention": {"users_ms": 3_600_000}})
    with pytest.raises(SettingsError, match="items"):
        parse(sound() | {"retention": {"topics_ms": {"items": 3_600_000}}})
