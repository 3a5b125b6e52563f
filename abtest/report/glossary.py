"""The report's terms of art, a plain sentence each. A page explains those that it uses; docs/report.md has all."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """`met`: what a text that uses the term has in it, as a regular expression, in any case."""

    name: str
    said: str
    met: str


TERMS = (
    Term(
        "View",
        "An item that a request has shown a user: each item of its exposure or, where that was served only, each that "
        "an impression or another feedback event tells of. In a table, what its column views counts.",
        r"\bviews?\b",
    ),
    Term(
        "Effective view",
        "A view that its feedback event (effective_view), or the table’s column effective_views, counts as one. By "
        "KuaiRand’s rule, which the demo keeps: the whole of a video of up to 18 s was played, or 18 s of a longer "
        "one. EVR, the effective view rate, is effective views over views.",
        r"effective view|\bEVR\b",
    ),
    Term(
        "Guardrail",
        "A metric that the experiment must not make worse by more than the plan allows.",
        r"guardrail",
    ),
    Term(
        "Interval",
        "The differences that the data leave possible. Of all 95 % intervals, 95 in 100 hold the true difference.",
        r"\bintervals?\b",
    ),
    Term(
        "p-value",
        "How likely a difference at least this large would be by chance, if the arms did not differ at all.",
        r"p-value|\bp [=<>] \.",
    ),
    Term(
        "CUPED",
        "The same difference less what the users’ behaviour before the start explains of it: it estimates the same, "
        "with a narrower interval.",
        r"CUPED",
    ),
    Term(
        "Holm",
        "A correction of p-values for the number of metrics: the chance of even one false alarm among them stays at "
        "the error level.",
        r"\bHolm\b",
    ),
    Term(
        "Benjamini–Hochberg",
        "A correction of p-values for the number of metrics, milder than Holm’s: of the metrics called significant, "
        "at most a share as large as the error level is expected to be false alarms.",
        r"Benjamini",
    ),
    Term(
        "Fixed horizon",
        "A plan that looks once, after the last day.",
        r"fixed.horizon",
    ),
    Term(
        "Group-sequential",
        "A plan with a few looks that were fixed before the start: each asks for more than a single look would, so "
        "that all of them together keep the error level.",
        r"group-sequential",
    ),
    Term(
        "Confidence sequence (always-valid)",
        "Intervals that hold at all moments at once: one may look at any time, as often as one likes, and stop. "
        "They are wider for that.",
        r"confidence sequence|always-valid|holds? at all moments",
    ),
    Term(
        "Traffic split (sample ratio mismatch, SRM)",
        "Whether users fell into the arms as the weights say. Where they did not, users were lost or sent astray, "
        "and the arms differ by more than what is tested. Tested by χ², which compares counts with those expected.",
        r"Traffic split|SRM",
    ),
    Term(
        "Wald’s test",
        "One test of several differences at once: whether together they are larger than chance makes them.",
        r"Wald",
    ),
    Term(
        "Interference",
        "A model learned from what another arm’s users did, so that this arm’s effect is partly in its own.",
        r"interference|learned from",
    ),
    Term(
        "Log ratio",
        "The logarithm of treatment over control. Chance spreads it more evenly to both sides than the ratio; the "
        "interval is turned back into per cent.",
        r"log ratio",
    ),
    Term(
        "Delta method",
        "How the error of a ratio follows from the errors of its two parts and from how these go together.",
        r"delta method",
    ),
    Term(
        "Team draft",
        "Two sources take turns at filling one list, as captains pick teams, so that the same user judges both at "
        "once.",
        r"team.draft|preferred by",
    ),
)


def used(page: str) -> list[Term]:
    """The terms that the text of a page uses, its tags left out.

    >>> [term.name for term in used('<p class="CUPED">by Holm</p>')]
    ['Holm']
    """
    text = re.sub(r"<[^>]*>", " ", page)
    return [term for term in TERMS if re.search(term.met, text, re.IGNORECASE)]
