import random

from abtest.collect.records import AGES_MS, NOTHING, VERSIONS, EventSums, age_class, full_version, tracked_versions


def test_sums_add_up_field_by_field_and_nothing_adds_nothing():
    sums = EventSums(*range(1, 1 + len(EventSums._fields)))
    assert sums.plus(NOTHING) == sums
    assert sums.plus(sums) == EventSums(*(2 * value for value in sums))


def test_an_age_is_of_the_class_whose_end_it_has_not_reached():
    assert [age_class(end - 1) for end in AGES_MS] == [0, 1, 2, 3, 4]
    assert [age_class(end) for end in AGES_MS] == [1, 2, 3, 4, 5]
    assert age_class(-1) == -1


def test_a_delta_belongs_to_its_full_snapshot():
    assert [full_version(name) for name in ("v000010+003", "v000010", "")] == ["v000010", "v000010", ""]


def test_a_version_that_is_let_go_is_never_taken_back():
    versions = [f"v{i}" for i in range(100)]
    random.Random(3).shuffle(versions)
    tracked, gone = set(), set()
    for version in versions:
        before, tracked = tracked, tracked_versions([*tracked, version])
        gone |= (before | {version}) - tracked
        assert not tracked & gone
        assert len(tracked) <= VERSIONS
    assert tracked == tracked_versions(versions)
