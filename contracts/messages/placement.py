"""Where a record belongs: its partition and its key. This is part of the public contract (`docs/events.md`)."""

from contracts.messages.events import BadEvent, Reason


def partition_of(user_id: int, partitions: int) -> int:
    """The partition of a user's events: the same in `exposures`, `feedback` and `examples`, so they can be joined.

    >>> [partition_of(user, 2) for user in (1, 2, 3)]
    [1, 0, 1]
    """
    return user_id % partitions


def key_of(entity_id: int) -> bytes:
    """The record key of a user or an item: the id in decimal digits, as ASCII.

    >>> key_of(42)
    b'42'
    """
    return str(entity_id).encode()


def require_partition(user_id: int, partition: int, partitions: int, text: str = "") -> None:
    """See that a user's event lies where the user's other events do: elsewhere it would join nothing.

    `text`: the user's text id; empty where the event has none.

    Raises:
        BadEvent: it does not.

    """
    right = partition_of(user_id, partitions)
    if partition != right:
        user = f"{user_id} ({text!r})" if text else user_id
        detail = (
            f"user {user} belongs on partition {right} (user_id mod {partitions}), and this is on {partition}: "
            "name the partition when sending, as a client's own hash of the key is another"
        )
        raise BadEvent(Reason.WRONG_PARTITION, detail)
