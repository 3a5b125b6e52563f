"""What a producer has probably done, where a record is not what it should be: for the detail of a dead letter. Pure."""

import json

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

REGISTRY_HEADER_BYTES = 5  # a zero and the id of a schema, before the message
TEXT = 2
SENT_AS = {
    0: "a whole number",
    1: "a double or a fixed64",
    TEXT: "text or bytes",
    5: "a float or a fixed32",
}  # by wire type
WANTED = {
    FieldDescriptor.TYPE_INT64: "an int64",
    FieldDescriptor.TYPE_UINT32: "a uint32",
    FieldDescriptor.TYPE_BOOL: "a bool",
    FieldDescriptor.TYPE_STRING: "a string",
}  # the types of the fields that are required


def encoding_hint(value: bytes) -> str:
    """What bytes are that are no protobuf message; empty where nothing comes to mind.

    >>> encoding_hint(b'{"user_id": 7}')
    '; this is JSON, and a record holds the binary form of the message'
    >>> encoding_hint(bytes([0, 0, 0, 0, 1, 0, 8, 1]))
    '; this begins as what a serializer of a schema registry writes, and a record holds the bare message'
    >>> encoding_hint(b"junk"), encoding_hint(b"[" * 100_000)
    ('', '')
    """
    if value.lstrip()[:1] in (b"{", b"["):
        try:
            json.loads(value)
        except (ValueError, RecursionError):  # a producer decides how deep it nests
            return ""
        return "; this is JSON, and a record holds the binary form of the message"
    if value[:1] == b"\0" and len(value) > REGISTRY_HEADER_BYTES:
        return "; this begins as what a serializer of a schema registry writes, and a record holds the bare message"
    return ""


def type_hint(message: Message, field: str) -> str:
    """As what a field was sent that is missing, where it was sent as something else; empty where it was not.

    >>> from contracts.wire.events_pb2 import Feedback
    >>> sent_as_double = bytes([6 << 3 | 1]) + bytes(8)
    >>> type_hint(Feedback.FromString(sent_as_double), "time_ms")
    '; it was sent as a double or a fixed64, and is an int64'
    >>> type_hint(Feedback.FromString(bytes([4 << 3 | 2, 1]) + b"7"), "user_id")
    '; it was sent as text or bytes, and is an int64: a text id belongs in user_key'
    >>> type_hint(Feedback(), "time_ms")
    ''
    """
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    unknown = UnknownFieldSet(message)
    fields = [unknown[place] for place in range(len(unknown))]
    wire_types = [each.wire_type for each in fields if each.field_number == descriptor.number]
    if not wire_types:
        return ""
    said = f"; it was sent as {SENT_AS.get(wire_types[-1], 'a group')}, and is {WANTED[descriptor.type]}"
    twin = field.removesuffix("_id") + "_key"
    if wire_types[-1] == TEXT and twin in message.DESCRIPTOR.fields_by_name:
        return f"{said}: a text id belongs in {twin}"
    return said
