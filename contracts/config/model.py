"""Settings of what learns: shape and learning rate of the models, which all arms share."""

from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from contracts.config.section import Section

Positive = Annotated[int, Field(gt=0)]
DiffusionSchedule = Literal["exponential", "linear", "log"]
Part = Literal["guess", "end-to-end", "mean-start", "waits"]  # of T2Diff, which an ablation leaves out
LearnAt = Literal["last", "last-k", "every"]


class ModelSettings(Section):
    """Shape and learning of both models; the arms share every one of these."""

    dim: Positive = 64  # width of item vectors and user vectors
    id_dim: Positive | None = None  # width of the embedding of an item's id; None: `dim`
    category_dim: Positive = 16  # width of the embedding of an item's categories
    window: Positive = 32  # behaviours that a tower sees
    depth: Positive = 2  # layers of the transformers of T2Diff and SASRec
    session_length: Positive = 10  # the last k of them are the session (the paper's k)
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-3
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # an online learner sees each example once: none
    batch_size: Positive = 128
    page_loss: Annotated[float, Field(ge=0)] = 0.0  # weight of the softmax within the page; 0: pages teach nothing
    diffusion_steps: Positive = 50  # T
    diffusion_schedule: DiffusionSchedule = "exponential"  # of β, over the steps
    learn_at: LearnAt = "last"  # what follows a window, the last k behaviours too, or every one; the trainer's: auto
    learn_at_last: Positive | None = None  # k of `last-k`
    ablate: tuple[Part, ...] = Field(default=(), validation_alias=AliasChoices("without", "ablate"))  # parts of T2Diff

    @field_validator("ablate")
    @classmethod
    def _in_one_order(cls, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        """Two settings that leave the same parts out are equal."""
        return tuple(sorted(set(parts)))

    @model_serializer(mode="wrap")
    def _as_written(self, dump_fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Files call `ablate` `without`, as they have had it, and name `learn_at_last` where it is used alone."""
        values: dict[str, Any] = dump_fields(self)
        if values.get("learn_at_last", self) is None:
            del values["learn_at_last"]
        if "ablate" in values:
            values["without"] = values.pop("ablate")
        return values

    @model_validator(mode="after")
    def _last_k_is_sound(self) -> "ModelSettings":
        if self.learn_at == "last-k":
            if self.learn_at_last is None:
                raise ValueError("learn_at is last-k, which needs learn_at_last, the number of places")
            if self.learn_at_last > self.window:
                raise ValueError(f"learn_at_last is {self.learn_at_last}, beyond the window, which is {self.window}")
        elif self.learn_at_last is not None:
            unused = f"learn_at_last is {self.learn_at_last}, which learn_at: {self.learn_at} does not use"
            raise ValueError(f"{unused}; null takes it out")
        return self
