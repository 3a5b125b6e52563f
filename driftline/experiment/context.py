"""What settings and snapshots tell a report of an experiment that runs here. No figure is made of it."""

from abtest.analyse.checks import ModelFacts
from abtest.analyse.context import ReportContext, SnapshotMark
from abtest.collect.answers import first_answers
from abtest.collect.state import CollectorState
from contracts.config.settings import Settings
from contracts.snapshots.parts import Part
from driftline.inspect import build
from driftline.inspect.snapshots import went_live


def known_context(settings: Settings, state: CollectorState) -> ReportContext:
    """What settings and snapshots tell a report: configuration, seed, code, each arm's model and its snapshots.

    Marked are snapshots that went live, each at its first answer, which was on trial where it had one; where the state
    does not know that, at the newest event that it has learned from.
    """
    answered = first_answers(state)
    models, marks = [], []
    for arm, spec in settings.experiment.arms.items():
        manifests = went_live(settings.snapshot_root, spec.model)
        last = manifests[-1] if manifests else None
        marks += [
            SnapshotMark(arm, spec.model, each.version, answered.get((arm, each.version), each.event_time_ms))
            for each in manifests
        ]
        models.append(
            ModelFacts(
                arm=arm,
                model=spec.model,
                snapshots=len(manifests),
                last_version=last.version if last else None,
                learned_from=last.shares if last else {},
                learn_from=last.learn_from if last else "",
                parts=tuple(Part.all_of(last.metrics)) if last else (),
                recall={k: last.metrics.get(f"recall@{k}/outside") if last else None for k in (20, 100)},
            )
        )
    return ReportContext(
        models=tuple(models),
        configuration=settings.model_dump(mode="json", include={"stream", "trainer", "serving", "experiment"}),
        seed=settings.seed,
        commit=build.commit(),
        marks=tuple(marks),
    )
