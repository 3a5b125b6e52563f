"""proto/driftline/v1 only ever grows: what has been published is in proto/published/v1.json, and holds.

When fields, messages or methods were added (`make proto`) and go out with a release, publish them, so that from then on
they hold too:

    python -m tests.contracts.evolution --publish

and commit proto/published/v1.json. A change that this test refuses needs a package driftline.v2 beside v1.

`buf breaking` would do this as well; but buf comes as a Go binary, on package indexes only by way of npm, so that it
would take Node to run the tests.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from tests.contracts.evolution import FILES, PUBLISHED, Field, Interface, breaks, main, publish

BEFORE = Interface(
    messages={"p.Ask": {1: Field("user_id", "int64"), 2: Field("tags", "string", "repeated")}, "p.Reply": {}},
    enums={"p.Kind": {0: "NONE", 1: "SOME"}},
    methods={"p.S.Get": "p.Ask -> p.Reply", "p.S.List": "p.Ask -> stream p.Reply"},
)


def ask(*fields: tuple[int, str]) -> Interface:
    """BEFORE with other fields of p.Ask."""
    return replace(BEFORE, messages={**BEFORE.messages, "p.Ask": {n: Field.parse(text) for n, text in fields}})


def test_nothing_published_has_broken() -> None:
    published = Interface.read(PUBLISHED)
    assert {"driftline.v1.RecallRequest", "driftline.v1.Exposure"} <= set(published.messages)
    assert "driftline.v1.RecallService.Recall" in published.methods
    assert breaks(published, Interface.of(FILES)) == []


USER, TAGS = (1, "int64 user_id"), (2, "repeated string tags")


@pytest.mark.parametrize(
    ("present", "broken"),
    [
        (ask(TAGS), "p.Ask.user_id (1) was removed."),
        (ask((1, "int64 uid"), TAGS), "p.Ask.user_id (1) was renamed to uid."),
        (ask((1, "string name"), TAGS), "p.Ask.user_id (1): its number is used again, for 'string name'."),
        (ask((3, "int64 user_id"), TAGS), "p.Ask.user_id (1) has moved to number 3."),
        (ask((1, "int32 user_id"), TAGS), "p.Ask.user_id (1) was of type int64, and is of type int32."),
        (ask(USER, (2, "string tags")), "p.Ask.tags (2) was repeated, and is singular."),
        (ask((1, "optional int64 user_id"), TAGS), "p.Ask.user_id (1) was singular, and is optional."),
        (ask((1, "oneof:by int64 user_id"), TAGS), "p.Ask.user_id (1) was singular, and is in oneof by."),
        (replace(BEFORE, messages={"p.Ask": BEFORE.messages["p.Ask"]}), "Message p.Reply was removed."),
        (replace(BEFORE, enums={}), "Enum p.Kind was removed."),
        (replace(BEFORE, enums={"p.Kind": {0: "NONE"}}), "p.Kind.SOME (1) was removed."),
        (replace(BEFORE, enums={"p.Kind": {0: "NONE", 1: "ANY"}}), "p.Kind.SOME (1) was renamed to ANY."),
        (replace(BEFORE, methods={"p.S.List": BEFORE.methods["p.S.List"]}), "Method p.S.Get was removed."),
        (
            replace(BEFORE, methods={**BEFORE.methods, "p.S.Get": "p.Ask -> stream p.Reply"}),
            "Method p.S.Get was 'p.Ask -> p.Reply', and is 'p.Ask -> stream p.Reply'.",
        ),
    ],
)
def test_each_kind_of_break_is_named(present: Interface, broken: str) -> None:
    assert breaks(BEFORE, present) == [broken]


def test_out_of_a_oneof_is_a_break() -> None:
    before, after = ask((1, "oneof:by int64 user_id")), ask((1, "int64 user_id"))
    assert breaks(before, after) == ["p.Ask.user_id (1) was in oneof by, and is singular."]


def test_a_number_that_changes_hands_is_two_breaks() -> None:
    """The field has moved, and its number means something else now."""
    assert breaks(BEFORE, ask((1, "string name"), TAGS, (3, "int64 user_id"))) == [
        "p.Ask.user_id (1) has moved to number 3.",
        "p.Ask.user_id (1): its number is used again, for 'string name'.",
    ]


def test_additions_are_no_breaks() -> None:
    grown = Interface(
        messages={**ask(USER, TAGS, (3, "optional bool x")).messages, "p.New": {1: Field("a", "p.Ask")}},
        enums={"p.Kind": {0: "NONE", 1: "SOME", 2: "MORE"}, "p.Other": {0: "A"}},
        methods={**BEFORE.methods, "p.S.New": "p.New -> p.Reply"},
    )
    assert breaks(BEFORE, grown) == []


def test_an_interface_is_read_off_descriptors() -> None:
    """Presence, oneofs, maps, nested messages and enums, streams: whatever a .proto may hold."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    message = file.message_type.add(name="M", enum_type=[{"name": "E", "value": [{"name": "ZERO", "number": 0}]}])
    entry = message.nested_type.add(name="CountsEntry", options={"map_entry": True})
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=1)
    entry.field.add(name="value", number=2, type=kinds.TYPE_INT64, label=1)
    message.oneof_decl.add(name="by")
    message.oneof_decl.add(name="_maybe")
    message.field.add(name="id", number=1, type=kinds.TYPE_INT64, label=1, oneof_index=0)
    message.field.add(name="maybe", number=2, type=kinds.TYPE_BOOL, label=1, oneof_index=1, proto3_optional=True)
    message.field.add(name="many", number=3, type=kinds.TYPE_MESSAGE, label=3, type_name=".t.M")
    message.field.add(name="counts", number=4, type=kinds.TYPE_MESSAGE, label=3, type_name=".t.M.CountsEntry")
    message.field.add(name="kind", number=5, type=kinds.TYPE_ENUM, label=1, type_name=".t.M.E")
    file.service.add(
        name="S", method=[{"name": "Go", "input_type": ".t.M", "output_type": ".t.M", "server_streaming": True}]
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = Interface.of([pool.FindFileByName("t.proto")])
    assert {number: str(each) for number, each in found.messages["t.M"].items()} == {
        1: "oneof:by int64 id",
        2: "optional bool maybe",
        3: "repeated t.M many",
        4: "map<string,int64> counts",
        5: "t.M.E kind",
    }
    assert set(found.messages) == {"t.M"}
    assert found.enums == {"t.M.E": {0: "ZERO"}}
    assert found.methods == {"t.S.Go": "t.M -> stream t.M"}


def test_publishing_extends_what_was_published_and_refuses_to_break_it(tmp_path: Path) -> None:
    present = Interface.of(FILES)
    path = tmp_path / "v1.json"
    BEFORE.write(path)
    assert Interface.read(path) == BEFORE
    assert "Message p.Ask was removed." in publish(path)
    assert Interface.read(path) == BEFORE

    fewer = dict(list(present.messages.items())[1:])
    replace(present, messages=fewer).write(path)
    assert publish(path) == []
    assert Interface.read(path) == present


def test_the_command_says_how_it_is_used() -> None:
    assert "--publish" in (main([]) or "")
