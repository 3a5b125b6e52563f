"""Whether a record of a topic is a user's. Pure."""

from collections.abc import Callable

from google.protobuf.message import DecodeError, Message

from contracts.kafka import bus
from contracts.messages.forget import is_forget
from contracts.wire.events_pb2 import DeadLetter, Example, Exposure, Feedback
from driftline.forget.user import User

KINDS: dict[str, Callable[[], Message]] = {bus.EXPOSURES: Exposure, bus.FEEDBACK: Feedback, bus.EXAMPLES: Example}


def is_theirs(user: User, name: str, key: bytes | None, value: bytes | None) -> bool:
    """Whether a record has a user's id: in its key, its message or, where the id is long enough, its bytes.

    `name`: the topic's short name.

    >>> event = Feedback(user_id=7).SerializeToString()
    >>> is_theirs(User(7), "feedback", None, event), is_theirs(User(8), "feedback", b"7", event)
    (True, False)
    """
    content = value or b""
    if name == bus.EXPERIMENTS:  # keys are names of experiments; what operators say may have any number in it
        return user.occurs_in(content) or user.occurs_in(key or b"")
    if key == user.digits or user.occurs_in(content) or user.occurs_in(key or b""):
        return True
    return _in_letter(user, content) if name == bus.DEAD_LETTERS else _in_event(user, name, content)


def is_request(user: User, name: str, value: bytes | None) -> bool:
    """Whether a record is a request to forget the user."""
    if name not in {bus.FEEDBACK, bus.EXAMPLES}:
        return False
    message = _parsed(name, value or b"")
    return isinstance(message, Feedback | Example) and is_forget(message) and _in_message(user, message)


def _in_event(user: User, name: str, content: bytes) -> bool:
    message = _parsed(name, content)
    return message is not None and _in_message(user, message)


def _in_message(user: User, message: Message) -> bool:
    text = getattr(message, "user_key", "")
    return getattr(message, "user_id", 0) == user.number or bool(text and text == user.text)


def _in_letter(user: User, content: bytes) -> bool:
    try:
        letter = DeadLetter.FromString(content)
    except DecodeError:
        return False
    name = next((each for each in KINDS if letter.topic.endswith(each)), "")
    return letter.key == user.digits or user.is_named_in(letter.detail) or _in_event(user, name, letter.value)


def _parsed(name: str, content: bytes) -> Message | None:
    kind = KINDS.get(name)
    if kind is None:
        return None
    message = kind()
    try:
        message.ParseFromString(content)
    except DecodeError:
        return None
    return message
