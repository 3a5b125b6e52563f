"""What a part of a model is worth that it may be served without, as a manifest's `metrics` carry it."""

from collections.abc import Mapping
from typing import NamedTuple, Self

SERVED, WORTH, LOW, HIGH = "served:", "worth:", "/low", "/high"


class Part(NamedTuple):
    """A part, such as the guess of T2Diff, and by how much more is found with it: relative recall@20, 95 % interval."""

    name: str
    served: bool  # whether replicas have it
    worth: float | None = None  # relative to what is found without; None, as the next two, before enough was measured
    low: float | None = None
    high: float | None = None

    def metrics(self) -> dict[str, float]:
        """As a manifest carries it.

        >>> part = Part("guess", False, -0.001, -0.004, 0.002)
        >>> part.metrics()
        {'served:guess': 0.0, 'worth:guess': -0.001, 'worth:guess/low': -0.004, 'worth:guess/high': 0.002}
        >>> Part.all_of(part.metrics()) == [part], Part.all_of(Part("guess", True).metrics())[0].worth
        (True, None)
        """
        measured = {"": self.worth, LOW: self.low, HIGH: self.high}
        worth = {f"{WORTH}{self.name}{end}": value for end, value in measured.items() if value is not None}
        return {f"{SERVED}{self.name}": float(self.served)} | worth

    @classmethod
    def all_of(cls, metrics: Mapping[str, float]) -> list[Self]:
        """The parts that a manifest's metrics tell of, by name."""
        names = sorted(key.removeprefix(SERVED) for key in metrics if key.startswith(SERVED))
        return [
            cls(
                name,
                bool(metrics[f"{SERVED}{name}"]),
                *(metrics.get(f"{WORTH}{name}{end}") for end in ("", LOW, HIGH)),
            )
            for name in names
        ]
