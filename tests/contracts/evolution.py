"""What was published of proto/driftline/v1, and whether what is there now still keeps to it.

`python -m tests.contracts.evolution --publish` adds what is there now to proto/published/v1.json, and refuses where
something has broken: see test_evolution.py.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor, MethodDescriptor

from contracts.wire import events_pb2, recall_pb2

PUBLISHED = Path(__file__).parents[2] / "proto" / "published" / "v1.json"
FILES = (recall_pb2.DESCRIPTOR, events_pb2.DESCRIPTOR)
TYPES = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


@dataclass(frozen=True)
class Field:
    """A field as its line in the .proto has it; `label` is "", "optional", "repeated" or "oneof:NAME".

    >>> Field.parse("repeated int64 item_ids")
    Field(name='item_ids', type='int64', label='repeated')
    >>> str(Field("id", "string", "oneof:by"))
    'oneof:by string id'
    """

    name: str
    type: str
    label: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        *label, kind, name = text.split(" ")
        return cls(name, kind, *label)

    def __str__(self) -> str:
        return f"{self.label} {self.type} {self.name}".lstrip()


@dataclass(frozen=True)
class Interface:
    """Messages: fields by number. Enums: names by number. Methods: "Request -> Reply", each with "stream" or not."""

    messages: Mapping[str, Mapping[int, Field]] = field(default_factory=dict)
    enums: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Sequence[FileDescriptor]) -> Self:
        """What .proto files say."""
        messages = [each for file in files for top in file.message_types_by_name.values() for each in _with_nested(top)]
        enums = [each for file in files for each in file.enum_types_by_name.values()]
        enums += [each for message in messages for each in message.enum_types]
        services = [each for file in files for each in file.services_by_name.values()]
        return cls(
            {each.full_name: {f.number: _field(f) for f in each.fields} for each in messages},
            {each.full_name: _values(each) for each in enums},
            {method.full_name: _method(method) for each in services for method in each.methods},
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` has written."""
        data = json.loads(path.read_text())
        return cls(
            {name: {int(n): Field.parse(f) for n, f in fields.items()} for name, fields in data["messages"].items()},
            {name: {int(n): value for n, value in values.items()} for name, values in data["enums"].items()},
            data["methods"],
        )

    def write(self, path: Path) -> None:
        """Write it as JSON, a line a field."""
        data = {
            "messages": {name: {str(n): str(f) for n, f in fields.items()} for name, fields in self.messages.items()},
            "enums": self.enums,
            "methods": self.methods,
        }
        path.write_text(json.dumps(data, indent=2, sort_keys=False) + "\n")


def breaks(published: Interface, present: Interface) -> list[str]:
    """What of `published` does not hold in `present`, a sentence each; [] where there are only additions."""
    return [
        *_message_breaks(published.messages, present.messages),
        *_enum_breaks(published.enums, present.enums),
        *_method_breaks(published.methods, present.methods),
    ]


def _message_breaks(
    published: Mapping[str, Mapping[int, Field]], present: Mapping[str, Mapping[int, Field]]
) -> Iterator[str]:
    for message, fields in published.items():
        if message not in present:
            yield f"Message {message} was removed."
            continue
        now = present[message]
        numbers = {each.name: number for number, each in now.items()}
        for number, was in fields.items():
            where = f"{message}.{was.name} ({number})"
            found = now.get(number)
            if was.name in numbers and numbers[was.name] != number:
                yield f"{where} has moved to number {numbers[was.name]}."
            elif found is None:
                yield f"{where} was removed."
            if found is not None:
                yield from _field_breaks(where, was, found)


def _field_breaks(where: str, was: Field, now: Field) -> Iterator[str]:
    if now.name != was.name and now.type != was.type:
        yield f"{where}: its number is used again, for '{now}'."
        return
    if now.name != was.name:
        yield f"{where} was renamed to {now.name}."
    if now.type != was.type:
        yield f"{where} was of type {was.type}, and is of type {now.type}."
    if now.label != was.label:
        yield f"{where} was {_spoken(was.label)}, and is {_spoken(now.label)}."


def _enum_breaks(published: Mapping[str, Mapping[int, str]], present: Mapping[str, Mapping[int, str]]) -> Iterator[str]:
    for enum, values in published.items():
        if enum not in present:
            yield f"Enum {enum} was removed."
            continue
        for number, name in values.items():
            now = present[enum].get(number)
            if now != name:
                yield f"{enum}.{name} ({number}) was {'removed' if now is None else f'renamed to {now}'}."


def _method_breaks(published: Mapping[str, str], present: Mapping[str, str]) -> Iterator[str]:
    for method, was in published.items():
        now = present.get(method)
        if now is None:
            yield f"Method {method} was removed."
        elif now != was:
            yield f"Method {method} was '{was}', and is '{now}'."


def _spoken(label: str) -> str:
    return label.replace("oneof:", "in oneof ") or "singular"


def _with_nested(message: Descriptor) -> Iterator[Descriptor]:
    if not message.GetOptions().map_entry:
        yield message
        for nested in message.nested_types:
            yield from _with_nested(nested)


def _field(described: FieldDescriptor) -> Field:
    if described.message_type is not None and described.message_type.GetOptions().map_entry:
        key, value = (_type(each) for each in described.message_type.fields)
        return Field(described.name, f"map<{key},{value}>")
    oneof = described.containing_oneof
    if described.is_repeated:
        label = "repeated"
    elif oneof is None:
        label = ""
    else:  # `optional` is a oneof of its own, which protoc names after the field
        label = "optional" if oneof.name == f"_{described.name}" else f"oneof:{oneof.name}"
    return Field(described.name, _type(described), label)


def _type(described: FieldDescriptor) -> str:
    named = described.message_type or described.enum_type
    return named.full_name if named is not None else TYPES[described.type]


def _values(enum: EnumDescriptor) -> dict[int, str]:
    return {value.number: value.name for value in enum.values}


def _method(method: MethodDescriptor) -> str:
    asks, answers = ("stream " if each else "" for each in (method.client_streaming, method.server_streaming))
    return f"{asks}{method.input_type.full_name} -> {answers}{method.output_type.full_name}"


def publish(path: Path = PUBLISHED) -> list[str]:
    """Write what is there now, unless that breaks what was published; returns the breaks."""
    present = Interface.of(FILES)
    found = breaks(Interface.read(path), present) if path.exists() else []
    if not found:
        present.write(path)
    return found


def main(arguments: Sequence[str]) -> str | None:
    """The command; what it returns is why it failed."""
    if list(arguments) != ["--publish"]:
        return "usage: python -m tests.contracts.evolution --publish"
    return "\n".join(publish()) or None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
