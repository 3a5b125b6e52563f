"""When full snapshots first answered, as far as a collector's state knows."""

from abtest.collect.records import full_version
from abtest.collect.state import State


def first_answers(state: State) -> dict[tuple[str, str], int]:
    """Event time of the first answer by arm and full version, requests that are still open included.

    A version that has answered but is not told apart (see `abtest.collect.records.told_apart`) is left out: the open
    requests alone would make its first answer too late.
    """
    found = {version: first_ms for version, (first_ms, _) in state.spans.items()}
    let_go = {(arm, full_version(snapshot)) for arm, _, snapshot in state.recalls} - found.keys()
    for request in state.requests.values():
        shown = request.shown
        if shown is None or not shown.arm or not shown.snapshot:
            continue
        version = shown.arm, full_version(shown.snapshot)
        if version not in let_go:
            found[version] = min(found.get(version, shown.time_ms), shown.time_ms)
    return found
