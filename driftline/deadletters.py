"""Dead letters as a file: a broker in memory takes its topics with it."""

from pathlib import Path

from google.protobuf.json_format import MessageToJson

from contracts import bus
from contracts.settings import KafkaSettings
from contracts.wire.events_pb2 import DeadLetter


def save(settings: KafkaSettings, path: Path) -> int:
    """Write every dead letter as a line of JSON (bytes in base64) and return how many there were."""
    (partition,) = bus.partitions_of(settings, [bus.DEAD_LETTERS])
    consumer = bus.consumer(settings, [bus.DEAD_LETTERS], None)
    saved = 0
    try:
        with path.open("w") as file:
            end = None
            while end is None or consumer.position(partition) < end:
                for record in consumer.poll(100).get(partition, ()):
                    letter = DeadLetter.FromString(record.value)
                    line = MessageToJson(
                        letter,
                        preserving_proto_field_name=True,
                        always_print_fields_with_no_presence=True,
                        indent=None,
                    )
                    file.write(line + "\n")
                    saved += 1
                end = consumer.highwater(partition)
    finally:
        consumer.close()
    return saved
