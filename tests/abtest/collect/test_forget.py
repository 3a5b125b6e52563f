"""A user is taken out of the collector's state, and a report still computes."""

import pytest
from prometheus_client import CollectorRegistry

from abtest.analyse.analysis import analyse
from abtest.collect.forget import make_anonymous
from abtest.collect.records import OF_FORGOTTEN, USERS_FORGOTTEN, EventSums
from abtest.collect.state import CollectorState, close, folded, merge
from abtest.collect.store import Saved, load, save
from abtest.collect.worker import Meters, close_settled, let_go_of_ids, step
from contracts.config.settings import StreamSettings
from contracts.runtime.clock import DAY_MS, HOUR_MS
from contracts.wire.events_pb2 import Feedback, Forget
from tests.abtest.abtest_cases import START, exposure, feedback, rules
from tests.abtest.collect.test_worker import SEEN, SHOWN, Record

USER = 6_149_554_607_595_376_846
SALT = b"0123456789abcdef"


def forget(user=USER, exposures_end=1):
    request = Forget(exposures_end=exposures_end, salt=SALT)
    return Feedback(schema_version=1, event_id="f", user_id=user, time_ms=START, forget=request)


def take(saved, partition, *events):
    offset = saved.offsets.get(f"{partition.topic}:0", 0)
    records = [Record(event.SerializeToString(), offset + i) for i, event in enumerate(events)]
    step(saved, partition, records, partition == SHOWN, StreamSettings(), 1, Meters(CollectorRegistry()))


def seen(*exposures, responses=()):
    saved = Saved(CollectorState(rules()))
    take(saved, SHOWN, *exposures)
    take(saved, SEEN, *responses)
    return saved


def test_a_folded_user_goes_with_all_sums():
    saved = seen(
        exposure(USER, request="r"),
        exposure(8, request="s"),
        responses=(feedback(USER, request="r"), feedback(8, request="s")),
    )
    close(saved.state, START)
    take(saved, SEEN, forget(exposures_end=2))
    assert [*saved.state.users] == [8]
    assert saved.state.arms == {"treatment": EventSums(1, 2, 1, 1, 0, 1000, served=2)}
    assert saved.state.counts[USERS_FORGOTTEN] == 1
    assert saved.forgot


def test_open_requests_and_waiting_feedback_go():
    saved = seen(exposure(USER, request="r"), responses=(feedback(USER, request="r"), feedback(USER, request="later")))
    take(saved, SEEN, forget())
    assert not saved.state.requests
    assert not folded(saved.state).users
    assert saved.state.counts[USERS_FORGOTTEN] == 1


def test_it_is_counted_once_however_often_it_is_asked():
    saved = seen(exposure(USER, request="r"), responses=(feedback(USER, request="r"),))
    take(saved, SEEN, forget(), forget())
    assert saved.state.counts[USERS_FORGOTTEN] == 1


@pytest.mark.parametrize("exposures_first", [True, False])
def test_in_which_order_the_logs_are_read_does_not_matter(exposures_first):
    """The exposure at offset 0 is from before the request, the one at offset 1 of a user who came back."""
    exposures = (SHOWN, exposure(USER, request="old"), exposure(USER, request="new"))
    responses = (SEEN, feedback(USER, request="old"), forget(), feedback(USER, request="new"))
    saved = Saved(CollectorState(rules()))
    for logs in (exposures, responses) if exposures_first else (responses, exposures):
        take(saved, *logs)
    assert [*saved.state.requests] == ["new"]
    assert folded(saved.state).users[USER].days == {0: EventSums(1, 2, 1, 1, 0, 1000, served=2)}


KEYS = [f"{SHOWN.topic}:0", f"{SEEN.topic}:0"]


def test_a_mark_lasts_until_all_that_was_shown_before_has_been_read(tmp_path):
    """In a catch-up the request is read ahead of the exposures, whose log is not as old as feedback was then."""
    saved = Saved(CollectorState(rules()))
    others = [exposure(8, request=f"s{hour}", at=START + hour * HOUR_MS) for hour in (0, 15, 30)]
    theirs = [exposure(USER, request=f"u{hour}", at=START + hour * HOUR_MS) for hour in (1, 19)]
    came_again = exposure(USER, request="u31", at=START + 31 * HOUR_MS)
    take(saved, SEEN, feedback(8, request="s0"), forget(exposures_end=4))
    take(saved, SEEN, feedback(8, request="s30", at=START + 30 * HOUR_MS))
    take(saved, SHOWN, others[0], theirs[0], others[1])
    close_settled(saved, KEYS)
    assert saved.state.closed_ms > START + 7 * HOUR_MS, "the request's own time is over"
    save(saved, tmp_path / "state.npz")
    saved = load(tmp_path / "state.npz", rules())
    take(saved, SHOWN, theirs[1], others[2])
    take(saved, SEEN, feedback(USER, request="u19", at=START + 20 * HOUR_MS))
    close_settled(saved, KEYS)
    assert USER not in folded(saved.state).users
    assert saved.state.counts[OF_FORGOTTEN] == 2
    assert saved.state.forgotten.get(USER) is not None, "feedback on u19 may come until 26 h"
    take(saved, SHOWN, came_again, exposure(8, request="late", at=START + 40 * HOUR_MS))
    take(saved, SEEN, feedback(8, request="late", at=START + 40 * HOUR_MS))
    close_settled(saved, KEYS)
    assert saved.state.forgotten.get(USER) is None
    assert folded(saved.state).users[USER].days == {1: EventSums(1, 2, served=2)}


def test_feedback_that_comes_after_is_nobodys_loss():
    saved = seen(exposure(USER, request="r"), responses=(forget(), feedback(USER, request="r", at=START + HOUR_MS)))
    close(saved.state, START + 2 * HOUR_MS)
    assert saved.state.counts[OF_FORGOTTEN] == 1
    assert not saved.state.counts["feedback_without_exposure"]


def test_marks_are_saved_without_the_id_and_expire(tmp_path):
    saved = seen(exposure(USER, request="r"), responses=(feedback(USER, request="r"), forget()))
    save(saved, tmp_path / "state.npz")
    content = (tmp_path / "state.npz").read_bytes()
    assert USER.to_bytes(8, "little") not in content
    assert str(USER).encode() not in content
    again = load(tmp_path / "state.npz", rules())
    assert again.state.forgotten == saved.state.forgotten
    assert again.state.forgotten.get(USER) is not None
    assert merge(again.state, CollectorState(rules())).forgotten == again.state.forgotten
    close(again.state, START + DAY_MS)
    assert again.state.forgotten.get(USER) is None


def of_users(users, *requests):
    saved = Saved(CollectorState(rules()))
    arms = ("control", "treatment")
    take(saved, SHOWN, *(exposure(n, arms[n % 2], request=f"r{n}") for n in users))
    take(saved, SEEN, *(feedback(n, request=f"r{n}", ev=n % 3 > 0) for n in users), *requests)
    return saved.state


def test_a_report_says_how_many_and_computes_as_if_they_had_never_come():
    gone = range(1, 11)
    with_them = of_users(range(1, 201), *(forget(n, 200) for n in gone))
    without = of_users(range(11, 201))
    report, expected = analyse(with_them), analyse(without)
    assert report.metrics == expected.metrics
    assert report.verdicts == expected.verdicts
    assert report.split == expected.split
    (check,) = (check for check in report.checks if check.name == USERS_FORGOTTEN)
    assert check.numbers["users_forgotten"] == 10
    assert check.level == "warning"
    assert check.said == "10 of 200 users (5.00 %) were forgotten on request, and in no figure over users."
    assert not [check for check in expected.checks if check.name == USERS_FORGOTTEN]


def test_after_the_experiment_sums_are_nobodys_and_the_report_stays():
    state = of_users(range(1, 201))
    close(state, rules().experiment.end_ms)
    before = analyse(state)
    saved = Saved(state)
    state.newest_ms = rules().experiment.end_ms + DAY_MS
    let_go_of_ids(saved, 2 * DAY_MS)
    assert 1 in state.users
    let_go_of_ids(saved, None)
    assert 1 in state.users
    let_go_of_ids(saved, DAY_MS)
    assert saved.forgot
    assert not set(state.users) & set(range(1, 201))
    after = analyse(state)
    assert after.split == before.split
    assert [metric.metric for metric in after.metrics] == [metric.metric for metric in before.metrics]
    for arm, again in zip(before.metrics[0].arms, after.metrics[0].arms, strict=True):
        assert again.value == pytest.approx(arm.value, rel=1e-12)
    numbers = set(state.users)
    make_anonymous(state)
    assert set(state.users) == numbers
