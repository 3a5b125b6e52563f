"""Where logs end, asked of the broker while one log of a partition has nothing at hand and the other has."""

from kafka import TopicPartition

from contracts.config.settings import KafkaSettings
from contracts.kafka import consumers
from contracts.runtime.clock import Clock

PATIENCE_S = 1.0  # a broker that says nothing for so long is asked again with the next tick
LOOK_BYTES = 4096  # of what may be there: that it is there is all that is asked


class LogEnds:
    """Looks with a consumer of its own, which seeks to where the caller is. It is made when it is first asked."""

    def __init__(self, settings: KafkaSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._client: consumers.Consumer | None = None

    def at_end(self, topic: str, partition: int, offset: int) -> bool:
        """Whether the broker has no record from `offset` on; False where it does not say in time.

        What a fetch tells is asked, not `end_offsets`: a log may end in offsets without records.
        """
        if self._client is None:
            self._client = consumers.consumer(
                self._settings, [], None, wait_ms=20, max_partition_fetch_bytes=LOOK_BYTES, max_poll_records=1
            )
        client, where = self._client, TopicPartition(topic, partition)
        client.assign([where])
        client.seek(where, offset)
        until_s = self._clock.elapsed_s() + PATIENCE_S
        while self._clock.elapsed_s() < until_s:
            if client.poll(100):
                return False
            if client.at_end(where):
                return True
        return False

    def close(self) -> None:
        """Close the consumer."""
        if self._client is not None:
            self._client.close()
            self._client = None
