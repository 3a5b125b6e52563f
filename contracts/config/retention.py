"""How long each store keeps what it knows of users. Nothing set keeps everything; see docs/forget.md."""

from typing import Annotated, Literal

from pydantic import Field

from contracts.config.section import Section

Topic = Literal["exposures", "feedback", "examples", "deadletters"]  # `items` is a table, which has no age
Age = Annotated[int, Field(ge=60_000)]


class RetentionSettings(Section):
    """Ages in milliseconds, of event time but for topics. None: for good; a topic not named: as the broker has it."""

    users_ms: Age | None = None  # after the last behaviour: the stream's state of a user, and the row in Feast
    archive_ms: Age | None = None  # archived examples and their rows, by the time at which the log received them
    experiment_users_ms: Age | None = None  # after the experiment's end: whose sums are whose
    topics_ms: dict[Topic, Age] = Field(default={})  # since a record was written: `retention.ms` of each

    @property
    def of_topics(self) -> dict[str, int]:
        """`topics_ms`, by short name."""
        return dict(self.topics_ms.items())
