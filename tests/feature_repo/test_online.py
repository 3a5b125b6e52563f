"""What a replica reads is what Feast's own client reads, on both stores, and costs no Feast."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feast import FeatureStore
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.provider import get_provider
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.config import FEATURES
from feature_repo.online import OnlineSequences, redis_options
from feature_repo.row import SEQUENCES, VIEW, UserRow
from feature_repo.sqlite import feast_closed
from feature_repo.store import UserSequences, apply, to_feast
from tests.feature_repo.feast_cases import redis_address

REDIS_DB = 10  # of this module's tests
PATIENT_S = 30.0  # tests share their machine
NEWEST = 40

INT64 = st.integers(-(2**63), 2**63 - 1)
USERS = st.integers(1000, 2**63 - 1)  # the other tests have those below
SIZES = st.one_of(st.just(200), st.integers(0, 3))
ROWS = st.builds(
    UserRow,
    user_id=USERS,
    **{name: SIZES.flatmap(lambda size: st.lists(INT64, min_size=size, max_size=size)) for name in SEQUENCES},
    last_event_ms=INT64,
    feedback_offset=INT64,
    session_start=INT64,
    written_us=st.integers(1, 10**17),
)


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def repo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An applied repository on each online store."""
    target = tmp_path_factory.mktemp(request.param)
    server = request.getfixturevalue("redis_server") if request.param == "redis" else None
    apply(target, redis_address(server, REDIS_DB) if server else None)
    return target


@pytest.fixture(scope="module")
def feasts(repo: Path) -> UserSequences:
    return UserSequences(repo)


@pytest.fixture(scope="module")
def online(repo: Path) -> Iterator[OnlineSequences]:
    features = OnlineSequences(repo, PATIENT_S)
    yield features
    features.close()


def plain(rows: Sequence[UserRow | None]) -> list[Any]:
    """All fields, and of arrays their types too."""
    return [
        row and [(field.dtype, field.tolist()) if isinstance(field, np.ndarray) else field for field in astuple(row)]
        for row in rows
    ]


def uniform(user_id: int, number: int) -> UserRow:
    """A row in which everything says the same number, so that a torn one shows."""
    values = [number] * 100
    return UserRow(user_id, *[values] * 6, number, number, number, number)


def number_of(row: UserRow | None) -> int:
    assert row is not None
    said = {value for name in SEQUENCES for value in getattr(row, name).tolist()}
    said |= {row.last_event_ms, row.feedback_offset, row.session_start, row.written_us}
    (number,) = said
    return int(number)


@settings(max_examples=30)
@given(
    rows=st.lists(ROWS, min_size=1, max_size=4),
    strangers=st.lists(USERS, min_size=1, max_size=2),
    data=st.data(),
)
def test_every_field_of_every_row_is_what_feasts_client_reads(
    feasts: UserSequences, online: OnlineSequences, rows: list[UserRow], strangers: list[int], data: st.DataObject
) -> None:
    feasts.write(rows)
    known = [row.user_id for row in rows]
    asked = known + data.draw(st.lists(st.sampled_from(known + strangers), max_size=12))
    assert plain(online.read(asked)) == plain(feasts.read(asked))


def test_a_missing_user_is_none_and_one_asked_for_twice_comes_twice(
    feasts: UserSequences, online: OnlineSequences
) -> None:
    feasts.write([uniform(11, 1), uniform(12, 2)])
    found = online.read([12, 999_999_999, 11, 12])
    assert found[1] is None
    assert [number_of(found[i]) for i in (0, 2, 3)] == [2, 1, 2]
    assert online.read([]) == []


def test_features_that_a_row_lacks_are_what_feasts_client_makes_of_them(
    repo: Path, feasts: UserSequences, online: OnlineSequences
) -> None:
    store = FeatureStore(repo_path=str(repo))
    view, provider = store.get_feature_view(VIEW), get_provider(store.config)
    users = range(21, 21 + len(FEATURES))
    with feast_closed():
        for user_id, missing in zip(users, FEATURES, strict=True):
            key, values, time, created = to_feast(uniform(user_id, 5))
            del values[missing]
            provider.online_write_batch(store.config, view, [(key, values, time, created)], None)
    found = online.read(users)
    assert plain(found) == plain(feasts.read(users))
    assert [row is None for row in found] == [missing == "last_event_ms" for missing in FEATURES]


def test_a_row_that_is_rewritten_while_it_is_read_is_never_torn(repo: Path, online: OnlineSequences) -> None:
    users = [31, 32, 33]
    writer = UserSequences(repo)

    def rewrite() -> None:
        for number in range(2, NEWEST + 1):
            writer.write([uniform(user_id, number) for user_id in users])

    writer.write([uniform(user_id, 1) for user_id in users])
    thread = threading.Thread(target=rewrite)
    thread.start()
    seen = [[1, 1, 1]]
    while min(seen[-1]) < NEWEST:
        seen.append([number_of(row) for row in online.read(users)])
        assert all(now >= before for now, before in zip(seen[-1], seen[-2], strict=True))
    thread.join()


def test_threads_read_at_once_and_each_gets_its_own(feasts: UserSequences, online: OnlineSequences) -> None:
    users = range(41, 57)
    feasts.write([uniform(user_id, user_id) for user_id in users])
    together = threading.Barrier(4)

    def read(first: int) -> bool:
        together.wait()
        mine = [*users[first:], *users[:first]]
        return all([number_of(row) for row in online.read(mine)] == mine for _ in range(50))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(read, range(4))) == [True] * 4


def test_a_row_keeps_no_more_memory_than_its_own(feasts: UserSequences, online: OnlineSequences) -> None:
    users = range(61, 65)
    feasts.write([uniform(user_id, 7) for user_id in users])
    for row in online.read(users):
        assert row is not None
        held = row.item_ids
        assert isinstance(held, np.ndarray)
        while isinstance(held.base, np.ndarray):
            held = held.base
        assert held.size == 600


def test_reading_needs_no_feast(repo: Path, feasts: UserSequences) -> None:
    feasts.write([uniform(71, 7)])
    program = (
        "import json, sys, pathlib\n"
        "from feature_repo.online import OnlineSequences\n"
        f"row, = OnlineSequences(pathlib.Path(sys.argv[1]), {PATIENT_S}).read([71])\n"
        "print(json.dumps([row.feedback_offset, sorted({name.partition('.')[0] for name in sys.modules})]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, repo], capture_output=True, text=True, check=True)
    found, modules = json.loads(done.stdout)
    assert found == 7
    assert "feature_repo" in modules
    assert not {"feast", "pandas", "pyarrow", "torch"} & set(modules)


@pytest.mark.parametrize(
    "text",
    ["localhost:6379", "redis:1,db=3,ssl=true,password=a=b", "h:1,password=007,username=me", 'h:1,db=0,password="7"'],
)
def test_connection_strings_mean_what_they_mean_to_feast(text: str) -> None:
    parse: Callable[[str], tuple[list[dict[str, str]], dict[str, Any]]] = RedisOnlineStore._parse_connection_string
    nodes, settings_of_feast = parse(text)
    assert redis_options(text) == nodes[0] | settings_of_feast
