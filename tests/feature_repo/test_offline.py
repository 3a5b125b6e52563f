"""The offline store is there from the start, with the columns of the online one."""

from pathlib import Path

from feast import FeatureStore
from feast.types import Array, Int64

from feature_repo import offline
from feature_repo.row import VIEW
from feature_repo.store import apply
from tests.feature_repo.feast_cases import historical


def test_there_are_historical_features_from_the_first_minute(tmp_path: Path) -> None:
    apply(tmp_path)
    assert historical(tmp_path, [1, 2], [1000, 2000]) == [None, None]


def test_the_offline_store_has_the_columns_of_the_online_one(tmp_path: Path) -> None:
    apply(tmp_path)
    view = FeatureStore(repo_path=str(tmp_path)).get_feature_view(VIEW)
    arrow = {Array(Int64): "list<element: int64>", Int64: "int64"}
    types = {field.name: str(field.type).replace("item:", "element:") for field in offline.SCHEMA}
    assert {field.name: arrow[field.dtype] for field in view.features} == {
        name: kind for name, kind in types.items() if name not in ("user_id", "event_timestamp", "created")
    }
    assert Path(view.batch_source.path) == offline.directory(tmp_path)
    assert view.batch_source.timestamp_field in types
    assert view.batch_source.created_timestamp_column in types
