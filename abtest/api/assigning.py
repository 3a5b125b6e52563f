"""`abtest.assign`: which arm users are in, as every replica of driftline's says."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from numbers import Integral, Real
from typing import Any

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
        users: whole numbers of 64 bits (a column with gaps has them as doubles: whole ones up to 2^53), or text ids.
        at: when, with a zone; None: now, or the nearest moment at which the experiment runs.

    Raises:
        SettingsError: the plan is none of driftline's, `at` has no zone, or a user is none.

    """
    experiment = planned(plan)
    given: Any = users
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise SettingsError(f"users is {users!r:.40}; give several, such as [1, 2].")
    if isinstance(experiment, External):
        raise SettingsError("assignment external: driftline does not assign its users; their arms are in the table.")
    if at is None:
        time_ms = min(max(SystemClock().now_ms(), experiment.start_ms), experiment.end_ms - 1)
    elif at.tzinfo is None:
        raise SettingsError(f"at is {at.isoformat()}, which has no zone; give one, such as {at.isoformat()}+00:00.")
    else:
        time_ms = (at - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
    return [assignment.assign(experiment, _number(user), time_ms).arm for user in users]


def _number(user: Any) -> int:
    if isinstance(user, str):
        try:
            return id_of_text(user)
        except BadTextId as error:
            raise SettingsError(f"The text id {user!r:.40} {error}.") from None
    number = _whole(user)
    if number is None:
        raise SettingsError(f"User {user!r:.40} is neither a whole number nor a text id.")
    if not -(2**63) <= number < 2**63:
        raise SettingsError(f"User {number} is not a signed 64-bit integer.")
    return number


def _whole(user: Any) -> int | None:
    """The number that a user is; None: none. No fraction becomes the user before it, no truth value becomes user 1, and
    no double beyond 2^53 its neighbour.
    """
    if isinstance(user, bool) or not isinstance(user, Real):
        return None
    if isinstance(user, Integral):
        return int(user)
    number = float(user)
    return int(number) if number.is_integer() and abs(number) <= 2**53 else None
