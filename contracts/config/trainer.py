"""Settings of the trainer: what learns, from whose data, when it publishes, and what the gate asks."""

from collections import Counter
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from contracts.config.experiment import ModelName, SettingsError, validated
from contracts.config.model import ModelSettings, Positive
from contracts.config.objective import ObjectiveSettings
from contracts.config.regimes import DEFAULT, SHARED, Regime, RegimesSettings, learning_at_chosen_places
from contracts.config.section import Section
from contracts.runtime.clock import HOUR_MS

Merged = TypeVar("Merged", bound=Section)

# They make one vector of a window, or hide places of it as they please, so `learn_at` can only be `last`.
ONE_VECTOR: tuple[ModelName, ...] = ("bert4rec", "diffurec", "mixed-attention", "t2diff-paper", "t2diff-without-drifts")
NOT_BY_EXAMPLE: tuple[ModelName, ...] = ("contrastvae",)  # their losses are no means over examples
LearnFrom = Literal["own", "pooled", "diverted", "weighted"]


class VocabularySettings(Section):
    """Which items are known, and when each is known by its id."""

    expire_after_ms: Positive | None = None  # of event time with neither announcement nor positive; None: never
    admit_after: Annotated[int, Field(ge=0)] = 0  # positives before which an item is its categories alone


class ReplaySettings(Section):
    """Earlier examples that are learned from again, out of a sample that prefers what is recent."""

    batches: Annotated[int, Field(ge=0)] = 0  # for each new one; 0: no example is learned from twice
    size: Positive = 20_000  # examples kept
    half_life_ms: Positive = 72 * HOUR_MS  # of event time; one that is older by it is half as likely to be kept


class CanarySettings(Section):
    """A snapshot on trial: it answers some requests first, and goes live unless what users do says otherwise."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.5  # of requests; at a half both sides are known equally well
    items: Positive = 4000  # shown on each side: enough to end a trial
    least_items: Positive = 1000  # shown on each side: enough to end it when the next snapshot falls due
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.025  # chance that the end of a trial is held against one as good
    early_alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.01  # the same of all looks before the end together

    @model_validator(mode="after")
    def _in_order(self) -> "CanarySettings":
        if self.least_items > self.items:
            raise ValueError(f"least_items is {self.least_items}, above items, which is {self.items}")
        return self


class GateSettings(Section):
    """When a snapshot is held back; see docs/gate.md for how these were chosen."""

    enabled: bool = True
    judge: Literal["canary", "recall"] = "canary"  # outcomes of users, or recall@k on examples (where nobody is served)
    canary: CanarySettings = CanarySettings()
    k: Positive = 100  # snapshots are compared by recall@k
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01  # of the incumbent's recall: losing less holds nothing
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95  # that a loss above the margin is no accident
    window: Positive = 1000  # newest examples that learner and incumbent both foresaw
    user_share: Annotated[float, Field(gt=0, le=1)] = 0.1  # of them: a user who makes more is no person
    anchor: Positive = 4000  # past examples that both are asked again at publication
    anchor_half_life_ms: Positive = 12 * HOUR_MS  # of event time: the anchor turns over within about a day
    patience_ms: Positive = 12 * HOUR_MS  # of event time that a hold lasts before what comes counts as the new normal


class TrainerSettings(Section):
    """What learns, from whose data, and when it publishes."""

    models: Annotated[tuple[ModelName, ...], Field(min_length=1)] = ("two_tower", "t2diff")
    model: ModelSettings = ModelSettings()
    # Whose examples a model learns from. "own": those of the arms that it serves, and those outside any experiment.
    # "diverted": those of the arms that it serves alone, what the literature calls a data-diverted experiment (Brennan
    # et al., "Reducing Symbiosis Bias Through Better A/B Tests of Recommendation Algorithms", WWW 2025): nothing that
    # another model has shaped reaches it, at the price of less to learn from. "pooled": everybody's. "weighted":
    # everybody's, each example as much as it would come from the model's own arms (`trainer.learn.arm_propensity`).
    learn_from: LearnFrom = "own"
    objective: ObjectiveSettings = ObjectiveSettings()  # how much an example counts by what came of it
    vocabulary: VocabularySettings = VocabularySettings()
    replay: ReplaySettings = ReplaySettings()
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0  # memory of the mean weights that go live, by step; 0: none
    regimes: RegimesSettings = RegimesSettings()
    softmax: Literal["full", "sampled"] = "full"  # over the catalogue, or over a step's targets and drawn items
    negatives: Positive = 1000  # sampled: items drawn uniformly for each step
    frequency_half_life: Positive = 100_000  # sampled: examples after which a target counts half in the correction
    publish_every_ms: Positive = 6 * HOUR_MS  # of event time
    publish_every_examples: Positive | None = None  # and after so many were learned from
    publish_every_s: Annotated[float, Field(gt=0)] | None = None  # and so often by the clock, where anything is new
    # Between snapshots, deltas: the item vectors that have moved by more than a tolerance since they were last sent.
    deltas_every_examples: Positive | None = None  # learned from
    deltas_every_s: Annotated[float, Field(gt=0)] | None = None  # by the clock, where anything is new
    delta_tolerance: Annotated[float, Field(ge=0)] = 0.01  # of a vector's length
    keep_snapshots: Positive = 10  # full ones, with their deltas; what is live or pinned stays anyway
    keep_rejected: Annotated[int, Field(ge=0)] = 3
    checkpoint_every_examples: Positive = 2000  # a restart learns at most so many a second time
    gate: GateSettings = GateSettings()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Positive = 1
    poll_records: Positive = 500

    def by_regime(self) -> dict[str, "TrainerSettings"]:
        """The settings of each regime, the trainer's own first.

        >>> pages = {"pages": {"model": {"page_loss": 1}, "average": 0.99}}
        >>> regimes = TrainerSettings.model_validate({"regimes": {"variants": pages}}).by_regime()
        >>> [(name, each.model.page_loss, each.average) for name, each in regimes.items()]
        [('default', 0.0, 0.0), ('pages', 1.0, 0.99)]
        """
        variants = self.regimes.variants
        return {DEFAULT: self} | {name: self._under(name, variant) for name, variant in variants.items()}

    def _under(self, name: str, regime: Regime) -> "TrainerSettings":
        where = f"regimes.variants.{name}"
        if name == DEFAULT:
            raise ValueError(f"{where}: the trainer's own regime has this name")
        fixed = [setting for setting in SHARED if setting in regime.model]
        if fixed:
            raise ValueError(f"{where}: {fixed[0]} is the same for all regimes; set trainer.model.{fixed[0]}")
        changed = self.model_copy(
            update={
                "model": _merged(self.model, regime.model, f"{where}.model"),
                "replay": _merged(self.replay, regime.replay, f"{where}.replay"),
                "average": self.average if regime.average is None else regime.average,
            }
        )
        if changed == self:
            raise ValueError(f"{where}: it changes nothing")
        return changed

    @model_validator(mode="before")
    @classmethod
    def _places_are_chosen(cls, values: Any) -> Any:
        return learning_at_chosen_places(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _regimes_are_sound(self) -> "TrainerSettings":
        regimes = [*self.by_regime().items()]
        for place, (name, regime) in enumerate(regimes):
            for before, earlier in regimes[:place]:
                if regime == earlier:
                    raise ValueError(f"regimes.variants.{name}: it is the same as {before}")
        return self

    @model_validator(mode="after")
    def _models_learn_where_they_are_told(self) -> "TrainerSettings":
        for name, regime in self.by_regime().items():
            where = "model" if name == DEFAULT else f"regimes.variants.{name}.model"
            for model in self.models:
                if model in ONE_VECTOR and regime.model.learn_at != "last":
                    raise ValueError(
                        f"{where}.learn_at: {regime.model.learn_at} does not go with {model}, which makes one vector "
                        "of a window"
                    )
        return self

    @model_validator(mode="after")
    def _models_are_named_once(self) -> "TrainerSettings":
        twice = [name for name, count in Counter(self.models).items() if count > 1]
        if twice:
            raise ValueError(f"models: {twice[0]} is named twice")
        return self


def _merged(section: Merged, changes: dict[str, Any], where: str) -> Merged:
    try:
        return validated(type(section), {**section.model_dump(), **changes}, where)
    except SettingsError as error:
        raise ValueError(str(error).rstrip(".")) from error
