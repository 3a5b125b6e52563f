"""Users taken out of a collector's state: on request, or when the experiment is long over.

A forgotten user's own sums go, so the user is in no figure over users, in no verdict and in no count of users. Sums
over requests lose what is known to be theirs; counts of events, answers by version and an aggregate that was saved
before keep what they have, as nothing in them is anybody's. How many were forgotten is counted, not who.
"""

import secrets

from abtest.collect.records import NOTHING, USERS_FORGOTTEN, EventSums
from abtest.collect.state import CollectorState, OpenRequest
from contracts.messages.forget import Mark
from contracts.wire.events_pb2 import Feedback

ID_BITS = 62


def forget_user(state: CollectorState, request: Feedback, partition: int) -> None:
    """Follow a request to forget: drop all that is the user's, but what was shown after the request was made.

    `partition`: where it lies, which is where the user's exposures do.
    It changes nothing a second time. Nothing that was shown after it can have been folded yet.
    """
    user_id, forget = request.user_id, request.forget
    arms: set[str] = set()
    for request_id, known in list(state.requests.items()):
        shown = known.shown
        if shown is not None and shown.user_id == user_id:
            if shown.offset < forget.exposures_end:
                arms |= {shown.arm} - {""}
                del state.requests[request_id]
        else:
            _drop_responses(state, request_id, known, user_id)
    user = state.users.pop(user_id, None)
    if user is not None:
        arms |= user.arms
        if len(user.arms) == 1:  # of one in two arms nobody knows which sums are of which
            (arm,) = user.arms
            mine = NOTHING
            for sums in user.days.values():
                mine = mine.plus(sums)
            state.arms[arm] = _less(state.arms.get(arm, NOTHING), mine)
    state.counts[USERS_FORGOTTEN] += bool(arms)
    rules = state.rules
    until_ms = state.newest_ms + rules.attribution_window_ms + rules.allowed_lateness_ms
    state.forgotten.add(user_id, Mark(forget.exposures_end, until_ms, partition), forget.salt)


def over_since_ms(state: CollectorState) -> int | None:
    """How long ago, in event time, the experiment ended and all its requests were folded; None: not yet."""
    end_ms = state.rules.experiment.end_ms
    return state.newest_ms - end_ms if state.closed_ms >= end_ms else None


def make_anonymous(state: CollectorState) -> None:
    """Give every user another, random number, and forget which: sums stay apart by user, and are nobody's any more.

    Users' buckets follow from their numbers, so errors that rest on buckets are another draw of the same size.
    """
    if state.anonymous:
        return
    numbers: set[int] = set()
    while len(numbers) < len(state.users):
        numbers.add(secrets.randbits(ID_BITS) | 1 << ID_BITS)
    state.users = dict(sorted(zip(numbers, state.users.values(), strict=True)))
    state.requests.clear()  # of after the end: nobody's in the experiment
    state.anonymous = True


def _drop_responses(state: CollectorState, request_id: str, known: OpenRequest, user_id: int) -> None:
    kept = {response: place for response, place in known.responses.items() if response.user_id != user_id}
    if len(kept) == len(known.responses):
        return
    known.responses = kept
    if not kept and known.shown is None:
        del state.requests[request_id]


def _less(all_sums: EventSums, sums: EventSums) -> EventSums:
    return EventSums(*(a - b for a, b in zip(all_sums, sums, strict=True)))
