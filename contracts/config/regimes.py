"""Settings of the regimes that a trainer tries beside its own, and of how the stream chooses among them."""

from typing import Annotated, Any

from pydantic import Field

from contracts.config.section import Name, Section

DEFAULT = "default"  # the regime of `trainer.model`, `trainer.replay` and `trainer.average` themselves
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
