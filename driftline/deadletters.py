"""Dead letters as a file: a broker in memory takes its topics with it."""

from pathlib import Path

from google.protobuf.json_format import MessageToJson

from contracts import bus
from contracts.settings import KafkaSettings
from contracts.wire.events_pb2 import DeadLetter


def save(settings: KafkaSettings, path: Path) -> int:
    """Write every dead letter as a line of JSON (bytes in base64) and return how many there were."""
    saved = 0
    with path.open("w") as file:
        for record in bus.read_to_end(settings, bus.DEAD_LETTERS, 0, 0):
            line = MessageToJson(
                DeadLetter.FromString(record.value),
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
                indent=None,
            )
            file.write(line + "\n")
            saved += 1
    return saved
