"""What was served and what of it was shown, and whether anything tells of items that were shown and not watched."""

from collections.abc import Iterator, Mapping

from abtest.analyse.results import Check, Level
from abtest.collect.records import IMPRESSIONS, NOT_SERVED, NOTHING_SHOWN, EventSums
from abtest.format import counted, number, share
from contracts.messages.attribution import only_positives

STRANGE = 0.001  # of the items that impressions name: page and exposure are of different requests


def shown_of(arms: Mapping[str, EventSums], counts: Mapping[str, int]) -> Iterator[Check]:
    """How many items each arm was served and shown; nothing where no exposure was seen.

    >>> (check,) = shown_of({"a": EventSums(views=90, served=500), "b": EventSums(views=80, served=400)}, {})
    >>> check.level, check.said
    ('ok', 'a was served 500 items and shown 90 (18.0 %), b 400 and 80 (20.0 %).')
    """
    if not any(sums.served for sums in arms.values()):
        return
    numbers: dict[str, float | int | str | None] = {}
    clauses: list[str] = []
    for arm, sums in arms.items():
        numbers |= {f"served:{arm}": sums.served, f"shown:{arm}": sums.views}
        of = share(sums.views / sums.served) if sums.served else "none"
        clauses.append(
            f"{arm} {number(sums.served)} and {number(sums.views)} ({of})"
            if clauses
            else f"{arm} was served {counted(sums.served, 'item')} and shown {number(sums.views)} ({of})"
        )
    text = f"{', '.join(clauses)}."
    level: Level = "ok"
    unseen = counts.get(NOTHING_SHOWN, 0)
    if unseen:
        text += f" Of {counted(unseen, 'recall')} nothing was shown; no figure has them."
    strangers = counts.get(NOT_SERVED, 0)
    if strangers:
        text += (
            f" {counted(strangers, 'item')} of impressions {'was' if strangers == 1 else 'were'} not served by their"
        )
        text += " requests, and no figure has them."
        level = "warning" if strangers > STRANGE * (strangers + sum(sums.told for sums in arms.values())) else level
    numbers |= {name: counts[name] for name in (IMPRESSIONS, NOTHING_SHOWN, NOT_SERVED) if counts.get(name)}
    yield Check("shown", "Served and shown", level, text, numbers)
    alone = [arm for arm, sums in arms.items() if only_positives(sums.views, sums.effective_views)]
    if alone:
        rates = {f"evr:{arm}": arms[arm].effective_views / arms[arm].views for arm in alone}
        yield Check("positives", "Items shown and not watched", "warning", f"{_said(alone, arms)}.", rates)


def one_sided(arm: str, control: str, arms: Mapping[str, EventSums]) -> str:
    """What speaks against shipping an arm: of it or of the control, positives alone are known. Else empty.

    >>> known = {"t": EventSums(views=200, effective_views=200), "c": EventSums(views=200, effective_views=20)}
    >>> one_sided("t", "c", known)
    'of t nearly all items shown (100.0 %) are effective views: nothing tells of those that were shown and not watched'
    >>> one_sided("c", "c", known)
    ''
    """
    alone = [each for each in (arm, control) if only_positives(*_rate(arms.get(each, EventSums())))]
    return _said(list(dict.fromkeys(alone)), arms) if alone else ""


def _rate(sums: EventSums) -> tuple[int, int]:
    return sums.views, sums.effective_views


def _said(alone: list[str], arms: Mapping[str, EventSums]) -> str:
    rates = " and ".join(share(arms[arm].effective_views / arms[arm].views) for arm in alone)
    text = f"of {' and '.join(alone)} nearly all items shown ({rates}) are effective views"
    return f"{text}: nothing tells of those that were shown and not watched"
