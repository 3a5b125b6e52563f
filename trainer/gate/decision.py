"""Whether a snapshot may go live: a pure decision from what it and the incumbent found of the same examples.

The incumbent is the newest published snapshot that was not below its predecessor on the anchor. Mostly that is the one
that is live; where publications follow each other within seconds it may be older, so a loss that is too small to be
seen from one publication to the next cannot add up unseen.

Two sets of examples are asked, and on both the user is the unit: the hits of each user are averaged first, so that a
bot is one user however loud it is.
- fresh: the newest ones, foreseen by both before the learner learned from them. Here a learner that has gone wrong is
  seen, but not one that has learned poison: on poisoned examples it does better than the incumbent.
- anchor: a sample of about the last day, asked again of both at publication. What was known must not be forgotten. Only
  examples of windows that passed come into the anchor, so what poisoned the learner cannot vouch for it.

A snapshot is held where it is below the incumbent by more than the margin, and the confidence bound says that this is
no accident. After that the burden of proof is the snapshot's. The gate opens again when the estimates themselves are
within the margin; or when the stream has recovered: for a whole window of fresh examples the incumbent has found as
many as it used to, and the learner no fewer. Without the second way an anchor that nothing fresh comes into would hold
back a stream that has recovered, for forgetting what has aged.

It is held, too, while one user makes more of the fresh examples than any person does. Users are the unit of the
comparison and not of the learning: a loud bot bends a model long before the others' recall shows it.

Poison and true drift look the same in their first hours: what comes contradicts what was known. What tells them apart
is that poison ends, and then the incumbent is as good as before; after a drift it never is again. So a hold lasts as
long as the contradiction does, but after `patience_ms` of event time what comes counts as the new normal: it enters the
anchor and outvotes the old within about a half-life. That is the longest that true drift is served by an old snapshot,
and the shortest that a poisoning must be kept up to go live.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from contracts.config.settings import GateSettings
from contracts.features import Floats, Ints
from contracts.snapshots.canary import Canary

MIN_USERS = 30  # fewer say nothing: the mean of their differences is not yet normally distributed

AS_USUAL = 0.9  # of its usual recall still is usual: recall varies by a twentieth from one 1,000 examples to the next

Hits = npt.NDArray[np.bool_]


class Comparison(NamedTuple):
    """A candidate's recall@k less the incumbent's, as a mean over users."""

    users: int
    incumbent: float  # its recall@k
    difference: float
    low: float  # each bound holds with the confidence that was asked for
    high: float

    def __str__(self) -> str:
        return f"{self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}] over {self.users:,} users"


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate goes live, and why."""

    passed: bool
    reason: str
    fresh: Comparison | None = None
    anchor: Comparison | None = None
    trial: Canary | None = None  # it answers some users first

    def figures(self) -> dict[str, bool | float | str]:
        """As a manifest carries them."""
        out: dict[str, bool | float | str] = {"passed": self.passed, "reason": self.reason}
        for name, comparison in (("fresh", self.fresh), ("anchor", self.anchor)):
            if comparison is not None:
                out |= {f"{name}_{field}": float(value) for field, value in comparison._asdict().items()}
        if self.trial is not None:
            out |= {"trial_share": self.trial.share, "trial_group": self.trial.group}
        return out


def compare(user_ids: Ints, candidate: Hits, incumbent: Hits, confidence: float) -> Comparison | None:
    """Compare hits on the same B examples; None where there are too few users to tell.

    The bounds are Student's, on the paired differences of the users' means.

    >>> users = np.repeat(np.arange(40), 2)
    >>> hits = np.arange(80) % 4 == 0
    >>> print(compare(users, hits, np.zeros(80, bool), 0.95))
    +0.2500 [+0.1826, +0.3174] over 40 users
    >>> compare(users[:40], hits[:40], hits[:40], 0.95) is None
    True
    """
    _, user = np.unique(user_ids, return_inverse=True)
    examples = np.bincount(user)
    if examples.size < MIN_USERS:
        return None
    mine, theirs = (np.bincount(user, hits) / examples for hits in (candidate, incumbent))
    apart = mine - theirs
    mean = float(apart.mean())
    reach = float(stats.t.ppf(confidence, apart.size - 1) * apart.std(ddof=1) / np.sqrt(apart.size))
    return Comparison(apart.size, float(theirs.mean()), mean, mean - reach, mean + reach)


def judge(
    incumbent: str,
    fresh: Comparison | None,
    anchor: Comparison | None,
    settings: GateSettings,
    *,
    held: bool,
    has_recovered: bool = False,
) -> Verdict:
    """Decide about a candidate without a flaw, beside an incumbent.

    Args:
        incumbent: its version.
        fresh: what was found on the newest examples; None: too few users to tell, which holds nothing.
        anchor: the same on the anchor.
        settings: margin and confidence.
        held: whether the candidate before was held, so that this one has to prove itself.
        has_recovered: whether the stream has.

    >>> worse = Comparison(users=900, incumbent=0.30, difference=-0.03, low=-0.04, high=-0.02)
    >>> print(judge("v000007", None, worse, GateSettings(), held=False).reason)
    recall@100 on the anchor is below v000007 by more than 1%: -0.0300 [-0.0400, -0.0200] over 900 users

    """
    if held and has_recovered:
        reason = f"the stream has healed; recall@{settings.k} beside {incumbent} on fresh examples: {fresh}"
        return Verdict(passed=True, reason=reason, fresh=fresh, anchor=anchor)
    findings = []
    for name, comparison in (("fresh examples", fresh), ("the anchor", anchor)):
        if comparison is None:
            findings.append(f"on {name}: too few users")
            continue
        limit = -settings.margin * comparison.incumbent
        if (comparison.difference if held else comparison.high) < limit:
            still = "still " if held else ""
            reason = f"recall@{settings.k} on {name} is {still}below {incumbent} by more than {settings.margin:.0%}"
            return Verdict(passed=False, reason=f"{reason}: {comparison}", fresh=fresh, anchor=anchor)
        findings.append(f"on {name}: {comparison}")
    reason = f"recall@{settings.k} beside {incumbent} {', '.join(findings)}"
    return Verdict(passed=True, reason=reason, fresh=fresh, anchor=anchor)


def recovered(fresh: Comparison | None, usual: float | None) -> bool:
    """Whether the incumbent finds what it used to, and the learner no less.

    Args:
        fresh: what was found on the newest examples.
        usual: what incumbents found of fresh examples while candidates passed; None: not known.

    """
    if fresh is None or usual is None:
        return False
    return fresh.incumbent >= AS_USUAL * usual and fresh.difference >= 0


def dominated_by_one_user(user_ids: Ints, settings: GateSettings) -> str | None:
    """Why the newest examples, (B,) by user, are not to be learned from alone: one user made too many; or None.

    Fewer than a window of examples tell nothing.

    >>> dominated_by_one_user(np.array([7] * 300 + [*range(700)]), GateSettings())
    'one user made 30% of the newest 1,000 examples'
    """
    if user_ids.size < settings.window:
        return None
    share = np.unique(user_ids, return_counts=True)[1].max() / user_ids.size
    return (
        f"one user made {share:.0%} of the newest {user_ids.size:,} examples" if share > settings.user_share else None
    )


def flaw(item_vectors: Floats) -> str | None:
    """Why no snapshot may have these item vectors (N, d), or None.

    >>> flaw(np.zeros((2, 3), np.float32)), flaw(np.eye(2, dtype=np.float32))
    ('an item vector is zero', None)
    """
    if not np.isfinite(item_vectors).all():
        return "an item vector is not finite"
    if not item_vectors.any(1).all():
        return "an item vector is zero"
    if len(item_vectors) > 1 and (item_vectors == item_vectors[0]).all():
        return "all item vectors are equal"
    return None
