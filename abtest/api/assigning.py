"""`abtest.assign`: which arm users are in, as every replica of driftline's says."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from abtest.api.inputs import Plan, planned
from abtest.assignment import assign as assignment
from contracts.config.experiment import SettingsError
from contracts.config.external import External
from contracts.messages.ids import BadTextId, id_of_text
from contracts.runtime.clock import SystemClock


def assign(plan: Plan, users: Iterable[int | str], *, at: datetime | None = None) -> list[str | None]:
    """The arm of each user; None for who is in none. The same in every process and on every machine.

    >>> import abtest
    >>> plan = {"name": "e", "salt": "s", "start_ms": 0, "end_ms": 86_400_000, "control": "a",
    ...         "arms": {"a": {"weight": 1, "model": "two_tower"}, "b": {"weight": 1, "model": "t2diff"}}}
    >>> abtest.assign(plan, [1, 2, 3, "4"])
    ['a', 'b', 'a', 'b']

    Args:
        plan: of an experiment that driftline assigns, as a mapping, the path of a YAML file, or an experiment.
        users: whole numbers of 64 bits, or text ids.
        at: when, with a zone; None: now, or the nearest moment at which the experiment runs.

    Raises:
        SettingsError: the plan is none of driftline's, `at` has no zone, or a user is none.

    """
    experiment = planned(plan)
    if isinstance(experiment, External):
        raise SettingsError("assignment external: driftline does not assign its users; their arms are in the table.")
    if at is None:
        time_ms = min(max(SystemClock().now_ms(), experiment.start_ms), experiment.end_ms - 1)
    elif at.tzinfo is None:
        raise SettingsError(f"at is {at.isoformat()}, which has no zone; give one, such as {at.isoformat()}+00:00.")
    else:
        time_ms = (at - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
    return [assignment.assign(experiment, _number(user), time_ms).arm for user in users]


def _number(user: int | str) -> int:
    try:
        number = id_of_text(user) if isinstance(user, str) else int(user)
    except BadTextId as error:
        raise SettingsError(f"The text id {user!r:.40} {error}.") from None
    if not -(2**63) <= number < 2**63:
        raise SettingsError(f"User {number} is not a signed 64-bit integer.")
    return number
