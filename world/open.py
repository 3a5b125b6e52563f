"""Which world a run takes place in."""

from pathlib import Path

from world.base import World, WorldError
from world.kuairand import kuairand
from world.synthetic import synthetic


def open_world(
    data: Path | None,
    *,
    days: int | None = None,
    warmup_days: int | None = None,
    seed: int = 0,
    slate: int = 4,
    users: int | None = None,
    items: int | None = None,
    births: float = 0.0,
) -> World:
    """The world of a KuaiRand-Pure folder, or a synthetic one where `data` is None.

    Args:
        data: the folder.
        days: of experiment; 7 by default.
        warmup_days: before them; 7 by default with data, 2 without.
        seed: of everything random.
        slate: the fewest items that a visit asks for.
        users: how many; all of the log's, or 1,000, by default.
        items: how many, in the synthetic world only; 1,500 by default.
        births: share of them that is born anew on each day, in the synthetic world only.

    Raises:
        WorldError: one sentence says what is missing or does not fit.

    """
    days = 7 if days is None else days
    if data is None:
        warmup_days = 2 if warmup_days is None else warmup_days
        return synthetic(
            seed,
            days=days,
            warmup_days=warmup_days,
            users=users or 1000,
            items=items or 1500,
            slate=slate,
            births=births,
        )
    if items is not None:
        raise WorldError("The number of items can only be chosen in the synthetic world.")
    if births:
        raise WorldError("Items are only born in the synthetic world.")
    if not data.is_dir():
        raise WorldError(f"{data} is not a folder.")
    warmup_days = 7 if warmup_days is None else warmup_days
    if (data / "data").is_dir():  # the archive holds its files one folder down
        data /= "data"
    return kuairand(data, days=days, warmup_days=warmup_days, seed=seed, slate=slate, users=users)
