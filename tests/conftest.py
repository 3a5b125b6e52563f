"""The servers that tests run on: the embedded broker, Apache Kafka and Redis.

A test that touches a broker asks for `kafka` and runs on both. Where a server cannot be started the test fails, so that
nobody takes a run without it for a whole one; DRIFTLINE_WITHOUT_SERVERS=1 says that it may skip.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from pydantic import SecretStr

import feature_repo  # noqa: F401  (before any test imports Feast, see there)
from contracts.config.settings import KafkaSettings, StoreSettings
from contracts.config.store import Location
from contracts.runtime.clock import SystemClock
from driftline.processes import broker, s3
from driftline.processes import kafka as apache_kafka
from driftline.processes import redis as redis_server_of
from driftline.processes.server import Server
from driftline.processes.supervisor import FEAST_VARIABLES, Supervisor

WITHOUT_SERVERS = "DRIFTLINE_WITHOUT_SERVERS"
S3_KEYS = ("tester", "the-secret-of-a-test")

# How long an example takes is the machine's business: on a busy one a deadline fails what is right.
hypothesis.settings.register_profile("driftline", deadline=None)
hypothesis.settings.load_profile("driftline")


def pytest_configure() -> None:
    """Take away what a `conftest.py` that imports Feast has set: pytest's workers would start with it."""
    for name in FEAST_VARIABLES:
        os.environ.pop(name, None)


def need_servers() -> None:
    """Skip where the environment says that there are no servers."""
    if os.environ.get(WITHOUT_SERVERS):
        pytest.skip(f"{WITHOUT_SERVERS} is set")


def serve(start: Callable[[], Server]) -> Iterator[Server]:
    """A server for as long as a fixture lives."""
    need_servers()
    with start() as server:
        yield server


def own_topics(server: Server) -> KafkaSettings:
    """Settings for one test on a broker that other tests use too. Test records carry timestamps of long ago."""
    return KafkaSettings(
        bootstrap_servers=server.address,
        topic_prefix=f"test-{uuid.uuid4().hex[:8]}.",
        topic_config={"retention.ms": "-1"},
    )


@pytest.fixture(scope="session")
def apache_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One Apache Kafka for the session. A test that kills or stops a broker takes `apache_of_its_own`."""
    directory = tmp_path_factory.mktemp("kafka")
    yield from serve(lambda: apache_kafka.start(apache_kafka.default_home(), directory))


@pytest.fixture
def apache_of_its_own(tmp_path: Path) -> Iterator[Server]:
    """An Apache Kafka that the test may kill; its cluster's id begins with a dash, as one in 64 does."""

    def start() -> Server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(apache_kafka.uuid, "uuid4", lambda: uuid.UUID(bytes=b"\xf8" * 16))
            return apache_kafka.start(apache_kafka.default_home(), tmp_path / "kafka")

    yield from serve(start)


def s3_at(server: Server, url: str, cache: Path, keys: tuple[str, str] = S3_KEYS) -> Location:
    """A place on an S3 server, reached with these keys."""
    store = StoreSettings(
        endpoint=f"http://{server.address}",
        region=s3.REGION,
        access_key_id=keys[0],
        secret_access_key=SecretStr(keys[1]),
        timeout_s=5,
        retry_for_s=1,
    )
    return Location(url, store, cache)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One S3 server for the session, with no bucket yet."""
    need_servers()
    if s3.binary(s3.default_home()) is None and s3.go() is None:
        pytest.skip("there is neither versitygw nor go to build it")
    s3.install(s3.default_home())
    with s3.start(s3.default_home(), tmp_path_factory.mktemp("s3"), *S3_KEYS) as server:
        yield server


@pytest.fixture
def s3_location(s3_server: Server, tmp_path: Path) -> Location:
    """A bucket of its own on the S3 server, and an empty cache."""
    bucket = f"bucket-{uuid.uuid4().hex}"
    s3.bucket(s3_server.directory, bucket)
    return s3_at(s3_server, f"s3://{bucket}/snapshots", tmp_path / "cache")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One Redis for the session."""
    directory = tmp_path_factory.mktemp("redis")
    yield from serve(lambda: redis_server_of.start(redis_server_of.default_home(), directory))


@pytest.fixture
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    """The embedded broker, with its topics."""
    clock = SystemClock()
    with Supervisor(tmp_path_factory.mktemp("embedded"), clock) as supervisor:
        settings = broker.start_embedded(supervisor, clock)
        broker.prepare(settings)
        yield settings


@pytest.fixture
def apache(apache_server: Server) -> KafkaSettings:
    """Apache Kafka, with topics of the test's own."""
    settings = own_topics(apache_server)
    broker.prepare(settings)
    return settings


@pytest.fixture(params=["embedded", "apache"])
def kafka(request: pytest.FixtureRequest) -> KafkaSettings:
    """Both brokers, one after the other."""
    settings: KafkaSettings = request.getfixturevalue(request.param)
    return settings
