"""The arms of an experiment: how much of the traffic each has, and what serves it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from contracts.config.section import Section

ModelName = Literal[
    "bert4rec",
    "caser",
    "contrastvae",
    "dat",
    "diffurec",
    "gru4rec",
    "mamba4rec",
    "mixed-attention",
    "sasrec",
    "stosa",
    "t2diff",
    "t2diff-paper",
    "t2diff-without-drifts",
    "two_tower",
]
ServedBy = Literal[ModelName, ""]  # "": nothing of driftline's, as it did not assign the experiment
EXPLORE: Literal["explore"] = "explore"
SourceName = ModelName | Literal["popular", "explore"]


class Source(Section):
    """One candidate source of an arm: a model, the items with the most positives, or places filled at random."""

    source: SourceName
    share: Annotated[float, Field(gt=0)] = 1.0  # of the k items, relative to the other sources' shares


class Arm(Section):
    """One arm: its share of the users and what serves them.

    `sources`: where its candidates come from, with quotas by their shares ("quota") or taking turns ("team-draft");
    () is the model alone.
    """

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    model: ServedBy
    sources: tuple[Source, ...] = ()
    blend: Literal["quota", "team-draft"] = "quota"

    @model_validator(mode="after")
    def _consistent(self) -> "Arm":
        names = [each.source for each in self.sources]
        if names and self.model not in names:
            raise ValueError(f"the arm's model '{self.model}' is not among its sources {names}")
        if len(set(names)) < len(names):
            raise ValueError(f"a source stands twice in {names}")
        if EXPLORE in names and self.blend == "team-draft":
            raise ValueError("explore goes with blend quota: in a team-draft all sources have as many turns")
        if self.explored >= 0.5:
            raise ValueError(
                f"explore would fill {self.explored:.0%} of the places; its share must be below the others'"
            )
        return self

    @property
    def explored(self) -> float:
        """The share of its places that are filled at random."""
        at_random = sum(each.share for each in self.sources if each.source == EXPLORE)
        return at_random / sum(each.share for each in self.sources) if at_random else 0.0

    @property
    def models(self) -> tuple[str, ...]:
        """The models that its candidates come from, its own first."""
        others = {self.model, "popular", EXPLORE}
        return (self.model, *(each.source for each in self.sources if each.source not in others))
