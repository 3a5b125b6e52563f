"""Settings of what is wanted of a model: how much an example counts by what came of it."""

from typing import Annotated

from pydantic import Field, model_validator

from contracts.config.section import Section

Weight = Annotated[float, Field(ge=0, le=1000)]


class ObjectiveSettings(Section):
    """How much an effective view counts in learning, the same for all models; see docs/trainer.md, "What is wanted".

    Only the proportions of the three weights matter: all examples together count as they do without.
    """

    effective_view: Weight = 1.0  # that it was one, which every example was
    play: Weight = 0.0  # its play time, in units of the mean play time of the examples
    follow: Weight = 0.0  # that the user followed, beside the rest
    play_cap_ms: Annotated[int, Field(gt=0)] = 120_000  # a longer play counts as one of so long

    @property
    def weighs(self) -> bool:
        """Whether examples count differently."""
        return bool(self.play or self.follow)

    @model_validator(mode="after")
    def _wants_something(self) -> "ObjectiveSettings":
        if not self.effective_view and not self.play:
            raise ValueError("effective_view and play are both 0, so nothing but a view with a follow would be learned")
        return self
