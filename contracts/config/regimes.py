"""Settings of the regimes that a trainer tries beside its own, and of how the stream chooses among them."""

from typing import Annotated, Any

from pydantic import Field

from contracts.config.section import Name, Section

DEFAULT = "default"  # the regime of `trainer.model`, `trainer.replay` and `trainer.average` themselves
AUTO = "auto"  # of `learn_at`: the stream chooses between `last` and the last AUTO_LAST places
AUTO_LAST = 4
SHARED = ("dim", "window", "batch_size")  # of `trainer.model`: batches and snapshots have them whoever leads


class Regime(Section):
    """What a regime has otherwise than the trainer itself; the rest is the trainer's."""

    model: dict[str, Any] = Field(default={})  # of `trainer.model`
    replay: dict[str, Any] = Field(default={})  # of `trainer.replay`
    average: Annotated[float, Field(ge=0, lt=1)] | None = None  # None: the trainer's


class RegimesSettings(Section):
    """Regimes beside the trainer's own, `default`, which leads at the start; see docs/trainer.md."""

    variants: dict[Name, Regime] = Field(default={})
    share: Annotated[float, Field(gt=0, le=1)] = 1.0  # of users, by whose examples regimes are taught and compared
    half_life: Annotated[int, Field(gt=0)] = 5000  # pages after which one counts half as evidence
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.15  # of the leader's loss: being better by less changes nothing
    lead: Annotated[int, Field(gt=0)] = 500  # pages in a row for which a regime must be better to take over


def learning_at_chosen_places(trainer: dict[str, Any]) -> dict[str, Any]:
    """The trainer's section as `model.learn_at: auto` means it: each of its regimes twice, the second at four places.

    >>> pages = {"variants": {"pages": {"model": {"page_loss": 1}}}}
    >>> found = learning_at_chosen_places({"model": {"dim": 8, "learn_at": "auto"}, "regimes": pages})
    >>> found["model"], list(found["regimes"]["variants"])
    ({'dim': 8, 'learn_at': 'last'}, ['pages', 'default-last-4', 'pages-last-4'])
    """
    model, regimes = trainer.get("model"), trainer.get("regimes", {})
    if not isinstance(model, dict) or model.get("learn_at") != AUTO:
        return trainer
    chosen = trainer | {"model": model | {"learn_at": "last"}}
    variants = regimes.get("variants", {}) if isinstance(regimes, dict) else None
    if not isinstance(variants, dict) or not all(_is_section(each) for each in variants.values()):
        return chosen  # what is no section is named where sections are read
    at_four = {"learn_at": "last-k", "learn_at_last": AUTO_LAST}
    more = {
        f"{name}-last-{AUTO_LAST}": {**variant, "model": {**variant.get("model", {}), **at_four}}
        for name, variant in {DEFAULT: {}, **variants}.items()
        if "learn_at" not in variant.get("model", {})
    }
    added = {name: variant for name, variant in more.items() if name not in variants}  # one's own by that name stays
    return chosen | {"regimes": regimes | {"variants": variants | added}}


def _is_section(variant: Any) -> bool:
    return isinstance(variant, dict) and isinstance(variant.get("model", {}), dict)
