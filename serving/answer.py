"""Recalls, decided: which arm, which sources, which items, and why. Pure but for the models it is handed.

Requests are answered many at a time, because a tower and an index are; what one gets does not depend on the others.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat

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
    model: LoadedModel
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
    def model(self) -> LoadedModel:
        """The model whose snapshot answered."""
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
) -> list[Answer | NoAnswer]:
    """Answer requests from what is loaded, each by itself.

    Fallbacks, in order, of which each is named: the arm's model has no snapshot → the control's stands in for it; the
    features are late → the last ones known; the user is unknown → what the context says → popular items.

    Args:
        experiment: which arms there are.
        models: what is live, by model.
        requests: of users of any arm.
        hides: the items that nobody gets any more, by event time.
        canaries: what is on trial, by model. It answers its users in the place of their arm's own model, and of that
            alone: what stands in for it, and other sources, are what is live.

    """
    drafts = [_draft(experiment, models, request, hides, canaries) for request in requests]
    batches: dict[int, list[tuple[_Draft, str]]] = defaultdict(list)
    for draft in drafts:
        if isinstance(draft, NoAnswer):
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
    return [draft if isinstance(draft, NoAnswer) else _finished(draft) for draft in drafts]


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
) -> "_Draft | NoAnswer":
    name, arm, definition = place(experiment, request.user_id, request.time_ms)
    control = experiment.arms[experiment.control].model
    source: str = definition.model if definition.model in models else control
    own = models.get(source)
    if own is None:
        return NoAnswer(f"no snapshot of {definition.model} or of the control's model is loaded yet")
    on_trial = canaries.get(source) if canaries and source == definition.model else None
    if on_trial is not None and on_trial.answers(request.user_id, request.time_ms):
        own = on_trial.model
    if not own.items:
        return NoAnswer(f"the catalogue of snapshot {own.manifest.version} is empty")
    nothing_known = request.row is None and not request.recent
    fallbacks = [f"no snapshot of {each}" for each in definition.models if each not in models]
    if request.late:
        fallbacks.append(LATE if request.row else LATE_UNKNOWN)
    elif request.row is None:
        fallbacks.append(UNKNOWN if nothing_known else FROM_CONTEXT)
    sources = {POPULAR: own} if nothing_known else {source: own} | _others(definition, models, source, own)
    want = request.want._replace(hidden=hides(request.time_ms))
    return _Draft(name, arm, definition, sources, want, fallbacks)


def _others(
    definition: Arm, models: Mapping[str, LoadedModel], source: str, own: LoadedModel
) -> dict[str, LoadedModel]:
    """The sources of an arm that there is something of; what is popular is as the arm's own model has counted it."""
    available = {POPULAR: own, **models, source: own}
    return {each.source: available[each.source] for each in definition.sources if each.source in available}


def _finished(draft: _Draft) -> Answer:
    sources = [Source(source, model, draft.candidates[source]) for source, model in draft.models.items()]
    ranked, first = _picks(draft), sources[0]
    if share := draft.blend.explored:
        found = explore(ranked, share, first.model, draft.want, first.candidates.user_vector)
        if found is not None:
            sources.append(Source(EXPLORE, first.model, found.candidates))
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
