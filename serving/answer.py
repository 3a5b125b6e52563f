"""Recalls, decided: which arm, which sources, which items, and why. Pure but for the models it is handed.

Requests are answered many at a time, because a tower and an index are; what one gets does not depend on the others.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice, repeat

import numpy as np

from abtest.assignment.assign import assign
from contracts.config.experiment import EXPLORE
from contracts.config.settings import Arm, Experiment
from contracts.features import Positives, positives
from feature_repo.row import UserRow
from serving.blend import Pick, quota, team_draft
from serving.catalogue import Hides
from serving.explore import explore
from serving.model import NOTHING_KEPT, Candidates, LoadedModel, OnTrial, Want

POPULAR = "popular"
UNKNOWN = "unknown user"
FROM_CONTEXT = "unknown user, from context"
LATE = "features late, last known"
LATE_UNKNOWN = "features late, none known"
NEWEST = "newest"
NOTHING_LEARNED = "nothing learned, popular items"
NOTHING_COUNTED = "nothing learned, newest items"
NO_TRIALS: Mapping[str, OnTrial] = {}


class NoAnswer(Exception):
    """No snapshot can answer; one sentence says why."""


@dataclass(frozen=True)
class FeaturedRequest:
    """One request, with what is known of its user."""

    user_id: int
    time_ms: int
    k: int
    row: UserRow | None
    late: bool = False  # the row is the last one that this replica has seen, not the store's
    exclude: Sequence[int] = ()
    recent: Sequence[int] = ()  # what the caller says that the user has just watched, oldest first

    @property
    def want(self) -> Want:
        """What it wants of each model."""
        if self.row is None:
            moments = np.full(len(self.recent), self.time_ms, np.int64)
            watched = Positives(np.array(self.recent, np.int64), moments)
            return Want(
                self.user_id, watched, NOTHING_KEPT, self.time_ms, self.k, frozenset((*self.exclude, *self.recent))
            )
        row = self.row
        seen = set(row.item_ids.tolist() if isinstance(row.item_ids, np.ndarray) else row.item_ids)
        seen.update(self.exclude)
        return Want(self.user_id, positives_of(row), row.written_us, self.time_ms, self.k, seen)


@dataclass(frozen=True)
class Source:
    """A candidate source that took part in an answer: its name, the snapshot behind it and what it found."""

    name: str
    model: LoadedModel | None  # None: no snapshot is behind it
    candidates: Candidates


@dataclass(frozen=True)
class Answer:
    """What a Recall replies and what its exposure says. The first source is the arm's own model or its stand-in."""

    experiment: str
    arm: str
    picks: Sequence[Pick]
    sources: Sequence[Source]
    fallbacks: Sequence[str]  # why the arm's own model and the user's features did not answer alone
    propensities: Mapping[int, float] = field(default_factory=dict)  # of the items that came to their places at random

    @property
    def model(self) -> LoadedModel | None:
        """The model whose snapshot answered; None where none did."""
        return self.sources[0].model


@dataclass
class _Draft:
    """An answer in the making."""

    experiment: str
    arm: str
    blend: Arm
    models: dict[str, LoadedModel]  # by source, the arm's own first
    want: Want
    fallbacks: list[str]
    candidates: dict[str, Candidates] = field(default_factory=dict)


def place(experiment: Experiment, user_id: int, time_ms: int) -> tuple[str, str, Arm]:
    """The (experiment, arm, definition) of a request; experiment and arm are empty for who is not in it."""
    arm = assign(experiment, user_id, time_ms).arm
    if arm is None:
        return "", "", experiment.arms[experiment.control]
    return experiment.name, arm, experiment.arms[arm]


def answer(
    experiment: Experiment,
    models: Mapping[str, LoadedModel],
    requests: Sequence[FeaturedRequest],
    hides: Hides,
    canaries: Mapping[str, OnTrial] = NO_TRIALS,
    newest: Sequence[int] | None = None,
) -> list[Answer | NoAnswer]:
    """Answer requests from what is loaded, each by itself.

    Fallbacks, in order, of which each is named: the arm's model has no snapshot → the control's stands in for it →
    what is popular by any other model's, then the newest items; the features are late → the last ones known; the user
    is unknown → what the context says → popular items.

    Args:
        experiment: which arms there are.
        models: what is live, by model.
        requests: of users of any arm.
        hides: the items that nobody gets any more, by event time.
        canaries: what is on trial, by model. It answers its users in the place of their arm's own model, and of that
            alone: what stands in for it, and other sources, are what is live.
        newest: the newest items of the catalogue, newest first, for who can be answered neither from the arm's model
            nor from the control's. None: they may not be answered with, as what is live is still being loaded.

    """
    drafts = [_draft(experiment, models, request, hides, canaries, newest) for request in requests]
    batches: dict[int, list[tuple[_Draft, str]]] = defaultdict(list)
    for draft in drafts:
        if not isinstance(draft, _Draft):
            continue
        for source, model in draft.models.items():
            if source == POPULAR:
                draft.candidates[source] = model.popular(draft.want)
            else:
                batches[id(model)].append((draft, source))
    for batch in batches.values():
        model = batch[0][0].models[batch[0][1]]
        for (draft, source), candidates in zip(batch, model.recall([draft.want for draft, _ in batch]), strict=True):
            draft.candidates[source] = candidates
    return [_finished(draft) if isinstance(draft, _Draft) else draft for draft in drafts]


def positives_of(row: UserRow) -> Positives:
    """The effective views of a user's row."""
    return positives(
        np.asarray(row.item_ids, np.int64),
        np.asarray(row.times_ms, np.int64),
        np.asarray(row.effective_views, np.bool_),
    )


def _draft(
    experiment: Experiment,
    models: Mapping[str, LoadedModel],
    request: FeaturedRequest,
    hides: Hides,
    canaries: Mapping[str, OnTrial],
    newest: Sequence[int] | None,
) -> "_Draft | Answer | NoAnswer":
    name, arm, definition = place(experiment, request.user_id, request.time_ms)
    control = experiment.arms[experiment.control].model
    source: str = definition.model if definition.model in models else control
    own = models.get(source)
    want = request.want._replace(hidden=hides(request.time_ms))
    fallbacks = [f"no snapshot of {each}" for each in definition.models if each not in models]
    if own is None:
        why = f"no snapshot of {definition.model} or of the control's model is loaded yet"
        return _unlearned(name, arm, models, want, fallbacks + _late(request), newest) or NoAnswer(why)
    on_trial = canaries.get(source) if canaries and source == definition.model else None
    if on_trial is not None and on_trial.answers(request.user_id, request.time_ms):
        own = on_trial.model
    if not own.items:
        why = f"the catalogue of snapshot {own.manifest.version} is empty"
        fallbacks.append(f"no items in the snapshot of {source}")
        return _unlearned(name, arm, models, want, fallbacks + _late(request), newest) or NoAnswer(why)
    nothing_known = request.row is None and not request.recent
    fallbacks += _late(request)
    if request.row is None and not request.late:
        fallbacks.append(UNKNOWN if nothing_known else FROM_CONTEXT)
    sources = {POPULAR: own} if nothing_known else {source: own} | _others(definition, models, source, own)
    return _Draft(name, arm, definition, sources, want, fallbacks)


def _late(request: FeaturedRequest) -> list[str]:
    if not request.late:
        return []
    return [LATE if request.row else LATE_UNKNOWN]


def _unlearned(
    experiment: str,
    arm: str,
    models: Mapping[str, LoadedModel],
    want: Want,
    fallbacks: Sequence[str],
    newest: Sequence[int] | None,
) -> Answer | None:
    """What there is without a model: the items that any live snapshot has counted positives of, then the newest.

    Of several snapshots it is the one that has learned from the newest example. None where there is nothing.
    """
    counted = [model for model in models.values() if model.items]
    if newest is None or not (counted or newest):
        return None
    sources: list[Source] = []
    picks: list[Pick] = []
    notes: list[str] = []
    if counted:
        model = max(counted, key=lambda each: (each.manifest.event_time_ms, each.manifest.model))
        popular = _positive(model.popular(want))
        if popular.item_ids:
            sources.append(Source(POPULAR, model, popular))
            notes.append(NOTHING_LEARNED)
            picks += zip(popular.item_ids, popular.scores, repeat(POPULAR), strict=False)
    if len(picks) < want.k:
        latest = _latest(newest, want, {item for item, _, _ in picks})
        if latest.item_ids or not sources:
            sources.append(Source(NEWEST, None, latest))
            notes.append(NOTHING_COUNTED)
            picks += zip(latest.item_ids, latest.scores, repeat(NEWEST), strict=False)
    return Answer(experiment, arm, picks, sources, [*fallbacks, *notes])


def _positive(popular: Candidates) -> Candidates:
    """Those that somebody has watched: what nobody has is in no order, and newer items may be missing."""
    watched = sum(score > 0 for score in popular.scores)  # they stand first
    return Candidates(popular.item_ids[:watched], popular.scores[:watched], None)


def _latest(newest: Sequence[int], want: Want, taken: AbstractSet[int]) -> Candidates:
    """The newest items that may be returned, as many as are wanting. They have no scores: 0."""
    seen, hidden = want.seen, want.hidden or (lambda _item: False)
    free = (item for item in newest if item not in seen and item not in taken and not hidden(item))
    found = list(islice(free, want.k - len(taken)))
    return Candidates(found, [0.0] * len(found), None)


def _others(
    definition: Arm, models: Mapping[str, LoadedModel], source: str, own: LoadedModel
) -> dict[str, LoadedModel]:
    """The sources of an arm that there is something of; what is popular is as the arm's own model has counted it."""
    available = {POPULAR: own, **models, source: own}
    return {each.source: available[each.source] for each in definition.sources if each.source in available}


def _finished(draft: _Draft) -> Answer:
    sources = [Source(source, model, draft.candidates[source]) for source, model in draft.models.items()]
    ranked = _picks(draft)
    if share := draft.blend.explored:
        first, model = next(iter(draft.models.items()))
        found = explore(ranked, share, model, draft.want, draft.candidates[first].user_vector)
        if found is not None:
            sources.append(Source(EXPLORE, model, found.candidates))
            return Answer(draft.experiment, draft.arm, found.picks, sources, draft.fallbacks, found.propensities)
    return Answer(draft.experiment, draft.arm, ranked, sources, draft.fallbacks)


def _picks(draft: _Draft) -> Sequence[Pick]:
    if len(draft.candidates) == 1:
        ((source, only),) = draft.candidates.items()
        return list(zip(only.item_ids, only.scores, repeat(source), strict=False))
    ranked = {source: list(zip(each.item_ids, each.scores, strict=True)) for source, each in draft.candidates.items()}
    if draft.blend.blend == "team-draft":
        return team_draft(ranked, draft.want.k, _coin(draft))
    shares: dict[str, float] = {each.source: each.share for each in draft.blend.sources}
    # Where the control stands in, it has the share of the arm's own model.
    return quota(ranked, {name: shares.get(name, shares[draft.blend.model]) for name in draft.models}, draft.want.k)


def _coin(draft: _Draft) -> np.random.Generator:
    """Throws that are a function of the user and the snapshots: asking twice gives one answer."""
    seeds = [model.manifest.sampling_seed for model in draft.models.values()]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([draft.want.user_id, *seeds])))
