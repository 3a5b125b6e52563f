"""A trainer's checkpoints on a store, and that two trainers of one group never both write."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.config.settings import SettingsError
from contracts.config.store import Location, StoreSettings
from contracts.storage.objects import Objects
from contracts.storage.remote import connect
from tests.contracts.store_cases import Turns, Unsteady
from trainer.shelf import HEAD, LEASE_S, FencedError, Stored

GROUP = "driftline.trainer"


def shelf(objects: Objects, wait: Callable[[float], object] = lambda _: None) -> Stored:
    return Stored(objects, "s3://bucket", GROUP, wait, beats=False)


@pytest.fixture(params=["memory", "s3"])
def objects(request: pytest.FixtureRequest) -> Objects:
    if request.param == "s3":
        return connect(request.getfixturevalue("s3_location"))
    connect.cache_clear()
    return connect(Location("memory:///shelf", StoreSettings(), Path("unused")))


def test_the_newest_are_kept_and_read_back(objects: Objects) -> None:
    mine = shelf(objects)
    mine.take()
    for number in (1, 2, 3):
        mine.put(number, b"state %d" % number, {"format": number}, keep=2)
    assert (mine.numbers(), mine.state(3), mine.manifest(2)) == ([2, 3], b"state 3", {"format": 2})
    mine.put(4, b"state 4", {}, keep=1)
    assert mine.numbers() == [4]
    assert len(objects.under(f".checkpoints/{GROUP}/")) == 2  # the head and one state
    mine.close()
    after = shelf(objects, wait=lambda _: pytest.fail("nobody has it"))
    after.take()
    assert after.state(4) == b"state 4"


@pytest.mark.parametrize("keep", range(1, 7))
def test_what_is_kept_has_its_state(objects: Objects, keep: int) -> None:
    mine = shelf(objects)
    mine.take()
    for number in range(1, 8):
        mine.put(number, b"state %d" % number, {}, keep)
        kept = list(range(max(number - keep, 0) + 1, number + 1))
        assert (mine.numbers(), [mine.state(each) for each in kept]) == (kept, [b"state %d" % each for each in kept])


def test_a_second_trainer_of_the_group_stops(objects: Objects) -> None:
    first = shelf(objects)
    first.take()
    second = shelf(objects, wait=lambda _: first.beat())
    with pytest.raises(SettingsError, match=f"Another trainer of the group {GROUP} runs"):
        second.take()
    first.put(1, b"state", {}, keep=2)


def test_who_was_taken_over_from_stops_and_writes_nothing(objects: Objects) -> None:
    first = shelf(objects)
    first.take()
    first.put(1, b"the first's", {}, keep=2)
    waited: list[float] = []
    second = shelf(objects, wait=waited.append)
    second.take()
    assert sum(waited) == LEASE_S
    for act in (lambda: first.put(2, b"late", {}, keep=2), first.require_mine):
        with pytest.raises(FencedError, match="has taken over"):
            act()
    first.beat()
    first.close()
    second.require_mine()
    assert second.numbers() == [1]
    assert second.state(1) == b"the first's"


SOUND = {"format": 1, "owner": None, "beat": 0, "write": "", "checkpoints": []}
ENTRY = {"number": 1, "object": "t2diff/STATE.json", "manifest": {}}
OF_ANOTHER_KIND = {
    "is not JSON": b"\x00",
    "has format None": b"[]",
    "has format 2": json.dumps(SOUND | {"format": 2}).encode(),
    "has format True": json.dumps(SOUND | {"format": True}).encode(),
    "has no beat, checkpoints, owner, write;": b'{"format": 1}',
    "beat: Input should be a valid integer;": json.dumps(SOUND | {"beat": "7"}).encode(),
    "more: Extra inputs are not permitted;": json.dumps(SOUND | {"more": 1}).encode(),
    "checkpoints.0.object: Field required;": json.dumps(SOUND | {"checkpoints": [{"number": 1}]}).encode(),
    "names 't2diff/STATE.json', which is no checkpoint;": json.dumps(SOUND | {"checkpoints": [ENTRY]}).encode(),
}


@pytest.mark.parametrize("problem", OF_ANOTHER_KIND)
def test_a_head_of_another_kind_is_left_as_it_is(objects: Objects, problem: str) -> None:
    head = OF_ANOTHER_KIND[problem]
    objects.put(f".checkpoints/{GROUP}/{HEAD}", head)
    with pytest.raises(SettingsError, match=rf"HEAD\.json:? {re.escape(problem)}"):
        shelf(objects).take()
    blob = objects.get(f".checkpoints/{GROUP}/{HEAD}")
    assert blob is not None
    assert blob.content == head


def test_states_without_a_head_are_not_deleted(objects: Objects) -> None:
    first = shelf(objects)
    first.take()
    first.put(1, b"state", {}, keep=2)
    first.close()
    key = f".checkpoints/{GROUP}/{HEAD}"
    head = objects.get(key)
    assert head is not None
    objects.delete([key])
    with pytest.raises(SettingsError, match=r"has states of checkpoints and no HEAD\.json"):
        shelf(objects).take()
    objects.put(key, head.content)
    again = shelf(objects)
    again.take()
    assert again.state(1) == b"state"


def test_two_that_start_at_once_and_answers_that_are_lost_leave_one_owner() -> None:
    for seed in range(300):
        connect.cache_clear()
        real = connect(Location("memory:///shelf", StoreSettings(), Path("unused")))
        turns = Turns(seed)
        kept: dict[str, list[int]] = {"one": [], "two": []}

        def trainer(name: str, turns: Turns = turns, real: Objects = real, kept: dict[str, list[int]] = kept) -> None:
            mine = shelf(Unsteady(real, turns, 0.15, lambda _key, _content: None), wait=lambda _: turns.pause())
            mine.take()
            for _ in range(3):
                number = max(mine.numbers(), default=0) + 1
                mine.put(number, name.encode(), {"by": name}, keep=9)
                kept[name].append(number)

        errors = turns.run({name: lambda name=name: trainer(name) for name in kept})  # type: ignore[misc]
        assert all(isinstance(error, SettingsError) for error in errors.values()), (seed, errors)
        assert len(errors) < 2, (seed, errors)
        reader = shelf(real)
        written = {number: reader.manifest(number)["by"] for number in reader.numbers()}
        said = {number: name for name, numbers in kept.items() for number in numbers}
        assert said.items() <= written.items(), seed  # what was said to be kept is there, and nobody wrote over it
