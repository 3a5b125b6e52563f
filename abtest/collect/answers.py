"""When full snapshots first answered, as far as a collector's state knows."""

from abtest.collect.records import full_version
from abtest.collect.state import CollectorState


def first_answers(state: CollectorState) -> dict[tuple[str, str], int]:
    """Event time of the first answer by arm and full version, requests that are still open included.

    A version that has answered but is not tracked (see `abtest.collect.records.tracked_versions`) is left out: the open
    requests alone would make its first answer too late.
    """
    first_ms_of = {version: first_ms for version, (first_ms, _) in state.spans.items()}
    let_go = {(arm, full_version(snapshot)) for arm, _, snapshot in state.recalls} - first_ms_of.keys()
    for request in state.requests.values():
        exposure = request.shown
        if exposure is None or not exposure.arm or not exposure.snapshot:
            continue
        version = exposure.arm, full_version(exposure.snapshot)
        if version not in let_go:
            first_ms_of[version] = min(first_ms_of.get(version, exposure.time_ms), exposure.time_ms)
    return first_ms_of
