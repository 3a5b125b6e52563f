"""Histories and rankings that the baselines' tests share."""

import numpy as np

from contracts.features import Ints
from evaluation.baselines.base import Baseline
from evaluation.data import Query, Sequence
from evaluation.fit import ranks


def sequence(*rows: int) -> Sequence:
    """Behaviours a day apart."""
    return Sequence(np.array(rows, np.int64), np.arange(len(rows)) * 86_400_000)


def ranks_by(baseline: Baseline, learnt: list[Sequence], items: int, asked: list[Query]) -> Ints:
    """Ranks of the queries' targets by a baseline that has learned `learnt`."""
    return ranks(baseline.fit(learnt, items).scores([q.history for q in asked]), asked)
