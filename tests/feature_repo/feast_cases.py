"""Feast as a user of a repository has it: its command line, and historical features as rows to compare."""

import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from feast import FeatureStore

from feature_repo.offline import SEQUENCES
from feature_repo.store import SERVICE, UserRow


def feast(repo: Path, *arguments: str) -> str:
    """What Feast's own command says in a repository."""
    command = [Path(sys.executable).with_name("feast"), "--chdir", repo, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def historical(repo: Path, users: Sequence[int], times_ms: Sequence[int]) -> list[UserRow | None]:
    """What `get_historical_features` says of users at times, in the order asked for.

    None where the user had no behaviour. `feedback_offset` is 0: the offline store has none.
    """
    asked = pd.DataFrame(
        {
            "user_id": users,
            "event_timestamp": pd.to_datetime(list(times_ms), unit="ms", utc=True),
            "n": range(len(users)),
        }
    )
    store = FeatureStore(repo_path=str(repo))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ibis calls what DuckDB 2 deprecates
        found = store.get_historical_features(entity_df=asked, features=store.get_feature_service(SERVICE)).to_arrow()
    answers = sorted(found.to_pylist(), key=lambda row: int(row["n"]))
    assert [row["n"] for row in answers] == list(range(len(users)))
    return [
        UserRow(
            user_id=row["user_id"],
            **{name: row[name] for name in SEQUENCES},
            last_event_ms=row["last_event_ms"],
            feedback_offset=0,
            session_start=row["session_start"],
            written_us=row["written_us"],
        )
        if row["last_event_ms"] is not None
        else None
        for row in answers
    ]
