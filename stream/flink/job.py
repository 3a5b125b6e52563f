"""The job: Kafka → `StreamFunction` → Kafka, exactly once. It needs PyFlink, and runs on any Flink cluster.

`driftline flink submit` runs it on a local one. On another one, where the settings' broker is reached by the same name
and every TaskManager has this code and Python's packages of `requirements.txt`:

    flink run -pym stream.flink.job -pyfs DRIFTLINE.zip -j CONNECTOR.jar -j RECORDS.jar -s SAVEPOINT … --settings FILE

The arguments before `--settings` are Flink's own; those after it are below.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyflink.common import Configuration, Types
from pyflink.datastream import DataStream, KeyedStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.util.java_utils import to_jarray

from contracts.config.settings import Settings, load
from contracts.kafka import bus
from stream.flink.envelope import LOGS
from stream.flink.operator import StreamFunction
from stream.flink.options import client_properties, plain

NAME = "driftline stream"
MAX_PARALLELISM = 128
TICK_MS = 100
TRANSACTION_TIMEOUT_MS = 15 * 60 * 1000  # the most that a broker allows by default; a restart must come before


def main(arguments: Sequence[str] | None = None) -> None:
    """Submit the job."""
    parser = argparse.ArgumentParser(description="driftline's stream on Apache Flink")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--rest", metavar="HOST:PORT", help="of a cluster, where `flink run` has not said it")
    parser.add_argument("--parallelism", type=int, help="default: Flink's own")
    parser.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE", help="of Flink, for this job")
    parser.add_argument("--jar", action="append", default=[], type=Path)
    options = parser.parse_args(arguments)
    configuration = Configuration()
    for entry in options.conf:
        key, _, value = entry.partition("=")
        configuration.set_string(key, value)
    environment = _environment(configuration, options.rest)
    if options.jar:
        environment.add_jars(*(path.absolute().as_uri() for path in options.jar))
    if options.parallelism:
        environment.set_parallelism(options.parallelism)
    build(environment, load(options.settings))
    job = environment.execute_async(NAME)
    print(json.dumps({"job": str(job.get_job_id())}), flush=True)  # noqa: T201  (for who has started this)


def _environment(configuration: Configuration, rest: str | None) -> StreamExecutionEnvironment:
    """That of `flink run`, or one that submits to the cluster at `rest`."""
    if rest is None:
        return StreamExecutionEnvironment.get_execution_environment(configuration)
    gateway = get_gateway()
    host, _, port = rest.rpartition(":")
    return StreamExecutionEnvironment(
        gateway.jvm.org.apache.flink.streaming.api.environment.RemoteStreamEnvironment(
            host,
            int(port),
            configuration._j_configuration,  # noqa: SLF001
            to_jarray(gateway.jvm.String, []),
        )
    )


def build(environment: StreamExecutionEnvironment, settings: Settings) -> None:
    """Put the job's graph into an environment."""
    environment.set_max_parallelism(MAX_PARALLELISM)
    kafka, jvm = settings.kafka, get_gateway().jvm
    keys = keys_of(kafka.partitions)
    source = _source(settings, keys)
    records = environment._j_stream_execution_environment.fromSource(  # noqa: SLF001
        source, jvm.org.apache.flink.api.common.eventtime.WatermarkStrategy.noWatermarks(), "Kafka"
    ).uid("kafka")
    # As `DataStream.key_by` does it, but that needs another Python process between the source and the function.
    keyed = KeyedStream(
        records.keyBy(jvm.KeyByKeySelector(), Types.ROW([Types.INT()]).get_java_type_info()),
        Types.PRIMITIVE_ARRAY(Types.BYTE()),
        DataStream(records),
    )
    stepped = keyed.process(
        StreamFunction(plain(settings), keys, TICK_MS), output_type=Types.PRIMITIVE_ARRAY(Types.BYTE())
    )
    stepped.name("driftline").uid("driftline")
    stepped._j_data_stream.sinkTo(_sink(settings)).name("Kafka").uid("sink")  # noqa: SLF001


def keys_of(partitions: int) -> list[int]:
    """The key that stands for each partition, so that any parallelism has its even share of them.

    Flink deals keys out by a hash into `MAX_PARALLELISM` groups and these evenly to tasks; a few keys, such as the
    partitions' own numbers, leave some tasks without any.
    """
    jvm = get_gateway().jvm
    group_of = jvm.org.apache.flink.runtime.state.KeyGroupRangeAssignment.assignToKeyGroup
    wanted = {(2 * each + 1) * MAX_PARALLELISM // (2 * partitions): each for each in range(partitions)}
    keys: dict[int, int] = {}
    key = 0
    while len(keys) < partitions:
        row = jvm.org.apache.flink.types.Row(1)
        row.setField(0, key)
        partition = wanted.get(group_of(row, MAX_PARALLELISM))
        if partition is not None:
            keys.setdefault(partition, key)
        key += 1
    return [keys[partition] for partition in range(partitions)]


def _source(settings: Settings, keys: list[int]) -> Any:
    kafka, gateway = settings.kafka, get_gateway()
    connector = gateway.jvm.org.apache.flink.connector.kafka.source
    topics = [kafka.topic(name) for name in LOGS]
    return (
        connector.KafkaSource.builder()
        .setBootstrapServers(kafka.bootstrap_servers)
        .setTopics(topics)
        .setStartingOffsets(connector.enumerator.initializer.OffsetsInitializer.earliest())
        .setProperties(_properties(client_properties(kafka)))
        .setProperty("isolation.level", "read_committed")
        .setProperty("partition.discovery.interval.ms", "-1")
        .setProperty("commit.offsets.on.checkpoint", "true")
        .setGroupId(kafka.topic("stream"))
        .setDeserializer(gateway.jvm.driftline.Records.In(topics[0], bus.SENT_AT, to_jarray(gateway.jvm.int, keys)))
        .build()
    )


def _sink(settings: Settings) -> Any:
    kafka, gateway = settings.kafka, get_gateway()
    connector = gateway.jvm.org.apache.flink.connector.kafka.sink
    topics = [kafka.topic(name) for name in (bus.EXAMPLES, bus.DEAD_LETTERS, bus.ROWS)]
    guarantee = gateway.jvm.org.apache.flink.connector.base.DeliveryGuarantee.EXACTLY_ONCE
    properties = client_properties(kafka) | {
        "acks": "all",
        "compression.type": "lz4",
        "linger.ms": "20",
        "max.request.size": str(bus.LARGEST_RECORD_BYTES),
        "transaction.timeout.ms": str(TRANSACTION_TIMEOUT_MS),
    }
    return (
        connector.KafkaSink.builder()
        .setBootstrapServers(kafka.bootstrap_servers)
        .setKafkaProducerConfig(_properties(properties))
        .setDeliveryGuarantee(guarantee)
        .setTransactionalIdPrefix(kafka.topic("stream"))
        .setRecordSerializer(gateway.jvm.driftline.Records.Out(to_jarray(gateway.jvm.String, topics)))
        .build()
    )


def _properties(entries: dict[str, str]) -> Any:
    properties = get_gateway().jvm.java.util.Properties()
    for key, value in entries.items():
        properties.setProperty(key, value)
    return properties


if __name__ == "__main__":
    main()
