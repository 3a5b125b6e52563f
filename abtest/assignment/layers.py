"""Experiments that run beside each other: reading their files, and what must not hold between them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from contracts.config.experiment import Experiment, SettingsError
from contracts.config.settings import experiment_of

SUFFIXES = (".yaml", ".yml")


def files(paths: Sequence[Path]) -> list[Path]:
    """The files themselves, and of a folder those that end in .yaml or .yml, by name; each file once.

    Raises:
        SettingsError: a folder holds none.

    """
    by_resolved_path: dict[Path, Path] = {}  # by what it is, however it was written
    for path in paths:
        inside = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise SettingsError(f"There is no experiment file ({', '.join(SUFFIXES)}) in {path}.")
        for each in inside:
            by_resolved_path.setdefault(each.resolve(), each)
    return list(by_resolved_path.values())


def read(paths: Sequence[Path]) -> tuple[dict[Path, Experiment], list[str]]:
    """The experiments of `files(paths)`, and a sentence on each file that is none."""
    experiments: dict[Path, Experiment] = {}
    errors = []
    for path in files(paths):
        try:
            experiments[path] = experiment_of(path)
        except SettingsError as error:
            errors.append(str(error))
    return experiments, errors


def conflicts(experiments: Mapping[Path, Experiment]) -> list[str]:
    """A sentence on everything that stands between two experiments.

    * A name is one experiment's: exposures carry it.
    * In one layer at one time, slots are disjoint: else a user would be in two experiments that exclude each other.
    * A salt is one experiment's, unless no user can be in both: else the arms of one follow those of the other, also
      after it has ended.
    * Experiments at one time have one holdout: else one would touch the users whom another leaves alone. A holdout's
      salt has one share.
    """
    return [
        f"{one}, {other}: {what}."
        for (one, a), (other, b) in combinations(experiments.items(), 2)
        for what in _between(a, b)
    ]


def overlap_in_time(a: Experiment, b: Experiment) -> bool:
    """Whether there is a moment at which both run."""
    return a.start_ms < b.end_ms and b.start_ms < a.end_ms


def exclusive(a: Experiment, b: Experiment) -> bool:
    """Whether no user but a tester can be in both: they share a layer, and no slot of it.

    >>> from contracts.config.experiment import Arm
    >>> arms = {"a": Arm(weight=1, model="two_tower"), "b": Arm(weight=1, model="t2diff")}
    >>> low = Experiment(name="e", salt="s", start_ms=0, end_ms=1, arms=arms, control="a", slots=(0.0, 0.5))
    >>> [exclusive(low, low.model_copy(update={"slots": slots})) for slots in ((0.5, 1.0), (0.4, 1.0))]
    [True, False]
    """
    return a.layer == b.layer and (a.slots[1] <= b.slots[0] or b.slots[1] <= a.slots[0])


def _between(a: Experiment, b: Experiment) -> Iterator[str]:
    together = overlap_in_time(a, b)
    if a.name == b.name:
        yield f"name: both are called '{a.name}'"
    if together and a.layer == b.layer and not exclusive(a, b):
        low, high = max(a.slots[0], b.slots[0]), min(a.slots[1], b.slots[1])
        yield f"slots: both take {low:g} to {high:g} of layer '{a.layer}' at the same time"
    if a.salt == b.salt and not exclusive(a, b):
        yield f"salt: both use '{a.salt}', so the arms of one follow those of the other"
    if together and a.layer == b.layer and (shared := sorted(a.testers & b.testers)):
        yield f"overrides: user {shared[0]} is a tester of both, and they exclude each other in layer '{a.layer}'"
    if a.holdout == b.holdout:
        return
    if together:
        yield "holdout: they run at the same time with different ones, so one touches the users whom the other leaves"
    elif a.holdout and b.holdout and a.holdout.salt == b.holdout.salt:
        yield f"holdout: salt '{a.holdout.salt}' has a share of {a.holdout.share:g} and of {b.holdout.share:g}"
