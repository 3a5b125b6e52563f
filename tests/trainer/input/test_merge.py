import random

import pytest

from trainer.input.merge import Entry, Merge


def released(merge: Merge[str], silent: list[int]) -> list[str]:
    return [entry.value for entry in merge.release(silent)]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_does_not_depend_on_how_the_polls_fell(seed: int) -> None:
    log = {p: [Entry(p, o, 10 * o + 3 * p, f"{p}/{o}") for o in range(20)] for p in (0, 1, 2)}
    rng = random.Random(seed)
    merge = Merge[str](log)
    pending = {p: list(entries) for p, entries in log.items()}
    order: list[str] = []
    while any(pending.values()):
        partition = rng.choice([p for p in pending if pending[p]])
        for _ in range(min(rng.randint(1, 7), len(pending[partition]))):
            merge.push(pending[partition].pop(0))
        order += released(merge, silent=[])
    order += released(merge, silent=[0, 1, 2])
    everything = sorted((e for entries in log.values() for e in entries), key=lambda e: (e.time_ms, e.partition))
    assert order == [e.value for e in everything]


def test_a_partitions_own_order_is_kept_even_against_event_time() -> None:
    merge = Merge[str]([0, 1])
    for offset, (time_ms, value) in enumerate([(50, "first"), (10, "late")]):
        merge.push(Entry(0, offset, time_ms, value))
    merge.push(Entry(1, 0, 30, "other"))
    assert released(merge, silent=[0, 1]) == ["other", "first", "late"]


def test_a_partition_that_may_still_speak_is_waited_for() -> None:
    merge = Merge[str]([0, 1])
    merge.push(Entry(0, 4, 1, "a"))
    assert released(merge, silent=[0]) == []
    assert (merge.waiting(0), merge.first_offset(0), merge.first_offset(1)) == (1, 4, None)
    assert released(merge, silent=[1]) == ["a"]
    assert (merge.waiting(0), merge.first_offset(0)) == (0, None)
