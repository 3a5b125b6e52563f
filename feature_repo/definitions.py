"""Feature definitions, in Feast's own terms. Stands alone: `feast apply` reads it without the rest of driftline."""

from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Int64

user = Entity(
    name="user",
    join_keys=["user_id"],
    value_type=ValueType.INT64,
    description="A person who is recommended to.",
)

# The DuckDB offline store takes a relative path from the working directory, not from the repository. A repository that
# was moved needs `feast apply` once more.
history = FileSource(
    name="user_sequence_history",
    path=str(Path(__file__).resolve().parent / "data" / "user_sequence"),
    file_format=ParquetFormat(),
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
    description="A directory of parquet files: the user's row before and after every training example.",
)

# Times are Int64 milliseconds: Feast writes Array(Int64) four times as fast as Array(UnixTimestamp).
user_sequence = FeatureView(
    name="user_sequence",
    entities=[user],
    schema=[
        Field(name="item_ids", dtype=Array(Int64), description="Behaviours, oldest first."),
        Field(name="times_ms", dtype=Array(Int64), description="When each item began to play, Unix ms."),
        Field(name="play_times_ms", dtype=Array(Int64), description="How long each was played."),
        Field(name="effective_views", dtype=Array(Int64), description="1 for an effective view, else 0."),
        Field(name="follows", dtype=Array(Int64), description="1 for a follow, else 0."),
        Field(name="sessions", dtype=Array(Int64), description="Session index of each, from 0 per user."),
        Field(
            name="session_start",
            dtype=Int64,
            description="Position of the first behaviour of the open session; the number of behaviours where none is.",
        ),
        Field(name="last_event_ms", dtype=Int64, description="Event time of the newest behaviour."),
        Field(name="feedback_offset", dtype=Int64, description="First feedback offset not included."),
        Field(name="written_us", dtype=Int64, description="Version of the row: of two rows the higher is the newer."),
    ],
    source=history,
    online=True,
    description="Each user's behaviour sequence, cut into sessions by an inactivity gap.",
)

recall_features = FeatureService(
    name="recall_features",
    features=[user_sequence],
    description="What a serving replica reads for one Recall.",
)
