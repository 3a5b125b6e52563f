"""A real replica whose items and users are named by text ids."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from contracts.config.settings import KafkaSettings
from contracts.kafka import bus
from contracts.messages.events import decode_exposure
from contracts.messages.ids import id_of_text
from contracts.snapshots import snapshot
from contracts.wire.events_pb2 import Item
from contracts.wire.recall_pb2 import Context, RecallReply, RecallRequest
from feature_repo.store import UserRow, UserSequences
from serving.client import Ask, RecallClient, Recalled
from serving.service import admit
from tests.contracts.messages.test_ids import COLLISION
from tests.serving.replica_cases import Replica, running
from tests.serving.replicas import LONG_S, driftline
from tests.serving.serving_cases import make_snapshot

FIRST, SECOND = COLLISION
TEXTS = {id_of_text(text): text for text in ("film/1", "film/2", "film/3", "日本", FIRST)}
ITEMS = sorted([7, *TEXTS])  # 7 has no text
ANNA = id_of_text("anna")
SEEN = ITEMS[0], ITEMS[5]


def entry(text: str, **fields: bool) -> tuple[bytes, bytes]:
    """Key and value of a catalogue record."""
    item_id = id_of_text(text)
    return bus.key_of(item_id), Item(schema_version=1, item_key=text, **fields).SerializeToString()


@pytest.fixture
def replica(tmp_path: Path, embedded: KafkaSettings) -> Iterator[Replica]:
    """One that has read all of the catalogue, knows Anna, and serves items by their numbers."""
    producer = bus.producer(embedded)
    topic = embedded.topic(bus.ITEMS)
    for key, value in (*map(entry, TEXTS.values()), entry(SECOND, blocked=True), entry("last", blocked=True)):
        producer.send(topic, key=key, value=value)
    producer.close()
    with running(tmp_path, embedded) as replica:
        UserSequences(replica.settings.feature_repo).write(
            [UserRow(ANNA, [*SEEN], [10, 20], [5, 5], [1, 0], [0, 0], [0, 0], 20, 2)]
        )
        made = replace(make_snapshot(), item_ids=np.array(ITEMS))
        snapshot.write(replica.settings.snapshots, made)
        snapshot.publish(replica.settings.snapshots, "two_tower", made.manifest.version)
        replica.wait_for("serving_swaps_total", 1)
        replica.wait_for("serving_withdrawn_items", 1)  # the last one; the second text of a number withdraws nothing
        yield replica


def ask(replica: Replica, k: int = 3, context: Context | None = None, **fields: object) -> RecallReply:
    context = Context(simulated=True) if context is None else context
    context.time_ms = 1000
    reply: RecallReply = replica.stub.Recall(RecallRequest(k=k, context=context, **fields), timeout=10)
    return reply


def shown(reply: RecallReply) -> list[tuple[int, str]]:
    return [(item.item_id, item.item_key) for item in reply.items]


def test_recall_takes_and_returns_texts_and_so_does_its_exposure(replica: Replica) -> None:
    by_number = ask(replica, user_id=ANNA, request_id="by number")
    by_text = ask(replica, user_key="anna", request_id="by text")
    assert shown(by_number) == shown(by_text) == [(item, TEXTS.get(item, "")) for item in ITEMS[1:4]]
    assert by_text.fallback == ""
    assert ask(replica, user_key="anna", user_id=ANNA).items == by_text.items

    without = TEXTS[ITEMS[1]], "no item's"
    left = ask(replica, user_key="anna", exclude_item_keys=without, exclude_item_ids=[ITEMS[2]])
    assert [item.item_id for item in left.items] == ITEMS[3:5]

    recent = [ITEMS[4], ITEMS[2]]
    strangers = [
        ask(replica, user_key="stranger", context=Context(recent_item_ids=recent)),
        ask(replica, user_key="stranger", context=Context(recent_item_keys=[TEXTS[item] for item in recent])),
    ]
    assert strangers[0].fallback == strangers[1].fallback == "unknown user, from context"
    assert strangers[0].items == strangers[1].items

    logged = {each.request_id: each for each in replica.exposures(6)}
    numbers, texts = logged["by number"], logged["by text"]
    assert (numbers.user_id, numbers.user_key, texts.user_id, texts.user_key) == (ANNA, "", ANNA, "anna")
    assert [(item.item_id, item.item_key) for item in texts.items] == shown(by_text)
    for exposure in (numbers, texts):
        limits = {"received_ms": exposure.time_ms, "future_tolerance_ms": 0, "max_bytes": 10_000}
        assert decode_exposure(exposure.SerializeToString(), **limits) == exposure


def test_an_item_that_is_withdrawn_by_its_text_is_gone(replica: Replica) -> None:
    producer = bus.producer(replica.settings.kafka)
    topic = replica.settings.kafka.topic(bus.ITEMS)
    key, value = entry(TEXTS[ITEMS[1]], blocked=True)
    producer.send(topic, key=key, value=value)
    producer.send(topic, key=bus.key_of(ITEMS[2]), value=None)
    producer.close()
    replica.wait_for("serving_withdrawn_items", 3)
    assert [item.item_id for item in ask(replica, user_key="anna").items] == ITEMS[3:5]


def test_the_clients_and_the_command_name_both(replica: Replica) -> None:
    target = f"127.0.0.1:{replica.child.facts['port']}"
    wanted = tuple(TEXTS.get(item, "") for item in ITEMS[1:4])
    with RecallClient([target], deadline_s=LONG_S) as client:
        found = client.recall(user_key="anna", k=3, time_ms=1000)
        assert (found.item_keys, [item.item_id for item in found.items]) == (wanted, ITEMS[1:4])
        (first, second) = client.recall_batch(
            [Ask(user_key="anna", k=2, exclude_keys=[wanted[0]], time_ms=1000), Ask(user_id=7, user_key="anna")]
        )
    assert isinstance(first, Recalled)
    assert first.item_keys == wanted[1:]
    assert str(second) == f"INVALID_ARGUMENT: user_key is 'anna', whose number is {ANNA}, and not 7."
    reply = json.loads(driftline("recall", "--user-key", "anna", "--k", "3", "--target", target).stdout)
    assert [item.get("item_key", "") for item in reply["items"]] == [*wanted]
    wrong = driftline("recall", "7", "--user-key", "anna", "--target", target)
    assert (wrong.returncode, wrong.stderr) == (2, f"driftline: {second}\n")
    nobody = driftline("recall", "--target", target)
    assert (nobody.returncode, nobody.stderr) == (
        2,
        "driftline: Say whom to recommend to: USER_ID, or --user-key TEXT.\n",
    )


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"user_key": "a" * 257}, "user_key has 257 bytes; 256 are allowed."),
        ({"user_key": "a\n"}, "user_key has a control character."),
        ({"user_key": "anna", "user_id": 7}, f"user_key is 'anna', whose number is {ANNA}, and not 7."),
        ({"user_key": ""}, "user_id is 0; it must be above 0, or user_key given."),
        ({"user_id": 7, "exclude_item_keys": ["a", ""]}, "exclude_item_keys is empty."),
        (
            {"user_id": 7, "context": Context(recent_item_keys=["a\0"])},
            "context.recent_item_keys has a control character.",
        ),
        (
            {"user_id": 7, "context": Context(recent_item_keys=["a"], recent_item_ids=[1])},
            "context has recent_item_ids and recent_item_keys; one of the two is allowed, as their order counts.",
        ),
    ],
)
def test_what_is_wrong_with_texts_is_said_before_anything_is_done(fields: dict[str, object], complaint: str) -> None:
    refused = admit(RecallRequest(k=2, **fields), 1000, max_k=10)
    assert (refused.code, refused.message) == (grpc.StatusCode.INVALID_ARGUMENT, complaint)  # type: ignore[union-attr]
