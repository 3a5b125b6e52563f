"""Whether the topics are those that the settings speak of."""

import pytest

from contracts.config.settings import KafkaSettings, SettingsError
from contracts.kafka import bus


def test_topics_that_init_made_are_accepted(kafka: KafkaSettings) -> None:
    bus.check_topics(kafka)


def test_a_missing_topic_is_one_sentence_that_says_what_creates_it(kafka: KafkaSettings) -> None:
    with pytest.raises(SettingsError, match=r"has no topic other\.items; `driftline init` creates it\.$"):
        bus.check_topics(kafka.model_copy(update={"topic_prefix": "other."}))


def test_another_number_of_partitions_is_refused(kafka: KafkaSettings) -> None:
    with pytest.raises(SettingsError, match=r"exposures has 2 partitions, and the settings say 4"):
        bus.check_topics(kafka.model_copy(update={"partitions": 4}))
