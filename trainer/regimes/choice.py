"""Which regime leads: a pure decision with hysteresis."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from contracts.config.regimes import RegimesSettings
from trainer.regimes.evidence import Gain

CERTAINTY = 1.96  # standard errors that a gain must be above the margin


@dataclass(frozen=True)
class Choice:
    """Who leads, and how far others are on their way to it."""

    leader: str
    ahead: Mapping[str, int] = field(default_factory=dict)  # regime -> pages in a row for which it has been better
    changes: int = 0  # of the leader, so far


def better(gain: Gain, loss: float, settings: RegimesSettings) -> bool:
    """Whether a gain over a leader with this mean loss is certain, and above the margin.

    >>> settings = RegimesSettings(margin=0.01)
    >>> better(Gain(0.05, 0.01), 1.0, settings), better(Gain(0.05, 0.03), 1.0, settings)
    (True, False)
    """
    return gain.mean - CERTAINTY * gain.std_error > settings.margin * loss


def choose(
    choice: Choice,
    loss: float,
    gains: Mapping[str, Gain],
    pages: int,
    settings: RegimesSettings,
    *,
    leader_is_out: bool = False,
) -> Choice:
    """The choice after more pages.

    A regime takes over once it has been better than the leader at every look over `settings.lead` pages; of several,
    the one with the largest gain. After a change all begin anew, so two that are alike do not take turns.

    Args:
        choice: before these pages.
        loss: the leader's mean loss, nats.
        gains: over the leader, of every other regime that may lead.
        pages: how many there were since the last look.
        settings: margin and lead.
        leader_is_out: the leader may lead no longer: the best of the others takes over at once.

    """
    ahead = {name: choice.ahead.get(name, 0) + pages for name, gain in gains.items() if better(gain, loss, settings)}
    ripe = [*gains] if leader_is_out else [name for name, count in ahead.items() if count >= settings.lead]
    if not ripe:
        return Choice(choice.leader, ahead, choice.changes)
    return Choice(max(ripe, key=lambda name: gains[name].mean), {}, choice.changes + 1)
