"""One Recall, decided: which arm, which model, which items, and why. Pure but for the models it is handed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from abtest.assignment import active, assign
from contracts.features import Ints, Positives, positives
from contracts.settings import Experiment
from feature_repo.store import UserRow
from serving.model import Candidates, LoadedModel

POPULAR = "popular"


class NoAnswer(Exception):
    """No snapshot can answer; one sentence says why."""


@dataclass(frozen=True)
class Answer:
    """What a Recall replies and what its exposure says."""

    experiment: str
    arm: str
    model: LoadedModel
    candidates: Candidates
    source: str
    fallback: str


def place(experiment: Experiment, user_id: int, time_ms: int) -> tuple[str, str, str]:
    """The (experiment, arm, model) of a request; experiment and arm are empty outside its period."""
    if active(experiment, time_ms):
        arm = assign(experiment, user_id)
        return experiment.name, arm, experiment.arms[arm].model
    return "", "", experiment.arms[experiment.control].model


def answer(
    experiment: Experiment,
    models: Mapping[str, LoadedModel],
    user_id: int,
    row: UserRow | None,
    time_ms: int,
    k: int,
) -> Answer:
    """Answer one request from what is loaded.

    Fallbacks, in order: the arm's model has no snapshot → the control's; the user is unknown → popular items.

    Raises:
        NoAnswer: nothing is loaded, or the catalogue is empty.

    """
    name, arm, wanted = place(experiment, user_id, time_ms)
    model = models.get(wanted)
    fallback = ""
    if model is None:
        model = models.get(experiment.arms[experiment.control].model)
        fallback = f"no snapshot of {wanted}"
    if model is None:
        raise NoAnswer(f"no snapshot of {wanted} or of the control's model is loaded yet")
    if not model.items:
        raise NoAnswer(f"the catalogue of snapshot {model.manifest.version} is empty")
    if row is None:
        return Answer(name, arm, model, model.popular(_none(), k), POPULAR, fallback or "unknown user")
    candidates = model.recall(user_id, positives_of(row), np.asarray(row.item_ids), time_ms, k)
    return Answer(name, arm, model, candidates, model.manifest.model, fallback)


def positives_of(row: UserRow) -> Positives:
    """The effective views of a user's row."""
    return positives(
        np.asarray(row.item_ids, np.int64),
        np.asarray(row.times_ms, np.int64),
        np.asarray(row.effective_views, np.bool_),
    )


def _none() -> Ints:
    return np.empty(0, np.int64)
