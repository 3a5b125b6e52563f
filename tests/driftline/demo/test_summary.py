"""A run that is not sound says so."""

from driftline.demo.summary import complaints

SOUND = {
    "recalls": 9,
    "recalls_failed": 0,
    "recall_errors": {},
    "mixed_version_replies": 0,
    "exposures_lost": 0,
    "events_in": 6,
    "example_sources": 1,
    "non_positive": 1,
    "folded": 1,
    "duplicates_dropped": 1,
    "dead_lettered": 2,
    "held": 0,
}


def test_a_sound_run_has_no_complaints() -> None:
    assert complaints(SOUND) == []


def test_each_defect_is_named() -> None:
    failed = SOUND | {"recalls_failed": 2, "recall_errors": {"UNAVAILABLE: gone": 2}}
    assert complaints(failed) == ["2 of 9 recalls failed: UNAVAILABLE: gone (2)"]
    assert complaints(SOUND | {"mixed_version_replies": 1}) == ["1 replies mixed snapshot versions"]
    assert complaints(SOUND | {"exposures_lost": 3}) == ["3 exposures were lost"]
    assert complaints(SOUND | {"events_in": 7}) == ["1 event is unaccounted for"]
