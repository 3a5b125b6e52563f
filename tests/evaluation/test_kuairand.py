from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation.data import DataError, ItemTable, Query, Sequence
from evaluation.kuairand import Before, Stream, earlier, queries, sequences, some, stream

MIDNIGHT_MS = 1_651_420_800_000  # 2022-05-02 in Beijing
# user, video, time after midnight in ms, effective
IMPRESSIONS = [
    (4, 30, 10, 1),
    (4, 20, 20, 0),
    (4, 20, 20, 0),  # the same impression again
    (9, 10, 30, 1),
    (4, 10, 40, 1),
    (4, 30, 50, 1),  # shown before, and viewed again
    (9, 20, 86_400_000, 1),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    columns = ["user_id", "video_id", "time_ms", "long_view"]
    log = pd.DataFrame(IMPRESSIONS, columns=columns)
    log["date"] = 20220502 + log["time_ms"] // 86_400_000
    log["time_ms"] += MIDNIGHT_MS
    log = log.assign(is_follow=0, play_time_ms=1, duration_ms=2, tab=0)
    log.iloc[::-1].to_csv(tmp_path / "log_standard_pure.csv", index=False)
    videos = pd.DataFrame({"video_id": [10, 20, 30, 40], "video_duration": 1.0, "tag": ["1", "2,3", None, "1"]})
    videos.to_csv(tmp_path / "video_features_basic_pure.csv", index=False)
    pd.DataFrame(
        {"user_id": [4, 5], "last_time_ms": [70, 80], "watch_seq": [[40, 10, 99], [20]], "long_watch_seq": [[40], [20]]}
    ).to_parquet(tmp_path / "user_history_until_4_24.parquet")
    return tmp_path


def plain(query: Query) -> tuple[int, list[int], int, int, list[int]]:
    time_ms = query.time_ms - MIDNIGHT_MS
    return query.user_id, query.history.rows.tolist(), time_ms, query.target, query.masked.tolist()


def test_the_stream_is_in_time_order_with_ids_of_the_contract(folder: Path) -> None:
    found = stream(folder)
    assert found.catalogue.item_ids.tolist() == [11, 21, 31, 41]
    assert found.catalogue.categories == ((2,), (3, 4), (), (2,))
    assert found.user_ids.tolist() == [5, 5, 10, 5, 5, 10]
    assert found.rows.tolist() == [2, 1, 0, 0, 2, 1]
    assert found.effective.tolist() == [True, False, True, True, True, True]
    assert (found.midnights_ms() - MIDNIGHT_MS).tolist() == [0, 86_400_000, 172_800_000]


def test_some_users_have_their_whole_stream_and_past(folder: Path) -> None:
    whole = stream(folder, histories=True)
    found = some(whole, 5)
    assert found.user_ids.tolist() == [5, 5, 10, 5, 5, 10]
    found = some(whole, 2)
    assert (found.user_ids.tolist(), found.rows.tolist()) == ([10, 10], [0, 1])
    assert found.before.keys() == {6}


def test_each_effective_view_asks_with_what_was_before_it(folder: Path) -> None:
    found = queries(stream(folder), MIDNIGHT_MS + 30, MIDNIGHT_MS + 86_400_000)
    assert [plain(q) for q in found] == [
        (10, [], 30, 0, []),
        (5, [2], 40, 0, [1, 2]),
        (5, [2, 0], 50, 2, [0, 1, 2]),
    ]


def test_what_was_before_the_log_comes_first(folder: Path) -> None:
    source = stream(folder, histories=True)
    first = queries(source, MIDNIGHT_MS, MIDNIGHT_MS + 30)
    assert [plain(q) for q in first] == [(5, [3], 10, 2, [0, 3])]
    assert first[0].history.times_ms.tolist() == [70]
    assert [s.rows.tolist() for s in sequences(source, MIDNIGHT_MS + 41)] == [[3, 2, 0], [1], [0]]


def test_a_backfill_asks_for_each_positive_of_before_and_lays_users_side_by_side() -> None:
    def before(*rows: int) -> Before:
        return Before(Sequence(np.array(rows), np.full(len(rows), 70)), np.array(rows))

    log = Stream(ItemTable(np.arange(9), ((),) * 9), *(np.empty(0, np.int64),) * 3, np.empty(0, bool))
    found = earlier(replace(log, before={4: before(7), 2: before(5, 6, 8, 1)}))
    asked = [(q.user_id, q.history.rows.tolist(), q.target, q.time_ms) for q in found]
    assert asked == [(2, [], 5, 70), (2, [5], 6, 70), (4, [], 7, 70), (2, [5, 6], 8, 70), (2, [5, 6, 8], 1, 70)]


def test_sequences_hold_the_positives_of_before(folder: Path) -> None:
    source = stream(folder)
    assert sequences(source, MIDNIGHT_MS) == []
    assert [s.rows.tolist() for s in sequences(source, MIDNIGHT_MS + 50)] == [[2, 0], [0]]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("log_standard_pure.csv", r"has no log_standard_\*\.csv \(nor log_standard_\*\.parquet\)\."),
        ("video_features_basic_pure.csv", r"has no video_features_basic_pure\.csv .*"),
        ("user_history_until_4_24.parquet", r"has no user_history_until_4_24\.parquet\."),
    ],
)
def test_a_folder_of_the_wrong_kind_is_one_sentence(folder: Path, name: str, sentence: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=sentence):
        stream(folder, histories=True)


def test_the_real_log(real_kuairand: Path) -> None:
    source = stream(real_kuairand)
    assert (source.rows.size, int(source.effective.sum())) == (222_444, 70_484)
    assert (np.diff(source.times_ms) >= 0).all()
    midnights = source.midnights_ms()
    start_ms, end_ms = int(midnights[-8]), int(midnights[-1])
    assert (start_ms, end_ms) == (MIDNIGHT_MS, MIDNIGHT_MS + 7 * 86_400_000)
    found = queries(source, start_ms, end_ms)
    assert len(found) == int(source.effective[source.times_ms >= start_ms].sum())
    assert sum(len(s) for s in sequences(source, end_ms)) == 70_484
    assert all(np.isin(q.history.rows, q.masked).all() for q in found)
