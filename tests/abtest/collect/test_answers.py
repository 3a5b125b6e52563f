"""When snapshots first answered, by the state."""

from abtest.collect.answers import first_answers
from abtest.collect.records import VERSIONS
from abtest.collect.state import CollectorState, close, folded
from tests.abtest.abtest_cases import MINUTE_MS, START, exposure, observe, rules


def answers(*versions: str) -> list:
    """One a minute, each of a user of the treatment."""
    return [
        exposure(user, "treatment", START + user * MINUTE_MS, f"r{user}", snapshot_version=version)
        for user, version in enumerate(versions)
    ]


def test_the_first_answer_of_each_version_counts_whether_its_request_is_open_or_folded():
    state = observe(CollectorState(rules()), *answers("v1", "v1+001", "v2", "v1", "v2"))
    expected = {("treatment", "v1"): START, ("treatment", "v2"): START + 2 * MINUTE_MS}
    assert first_answers(state) == expected
    close(state, START + 3 * MINUTE_MS)
    assert first_answers(state) == expected
    assert first_answers(folded(state)) == expected


def test_of_a_version_that_is_not_tracked_no_late_answer_is_taken_for_the_first():
    many = [f"v{i}" for i in range(VERSIONS + 5)]
    state = observe(CollectorState(rules()), *answers(*many, *many))
    close(state, START + (len(many) - 1) * MINUTE_MS)
    found = first_answers(state)
    assert len(found) == VERSIONS
    assert max(found.values()) < START + len(many) * MINUTE_MS
