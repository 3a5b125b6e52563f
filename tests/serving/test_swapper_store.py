"""A replica whose snapshots lie on a real S3 server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.config.settings import Arm, Experiment, KafkaSettings, Settings
from contracts.config.store import Location
from contracts.runtime.clock import ManualClock
from contracts.snapshots import canary, delta, retention, snapshot
from contracts.snapshots.canary import Canary
from contracts.storage.remote import connect
from driftline.processes import s3
from driftline.processes.server import Server
from serving.metrics import ServingMetrics
from serving.swapper import Swapper
from tests.conftest import S3_KEYS, need_servers, s3_at
from tests.serving.serving_cases import make_delta, make_snapshot

MODEL = "two_tower"


class Replica:
    def __init__(self, location: Location) -> None:
        arms = {name: Arm(weight=1, model=MODEL) for name in ("a", "b")}
        self.clock = ManualClock()
        self.metrics = ServingMetrics()
        settings = Settings(
            kafka=KafkaSettings(bootstrap_servers="nowhere:1"),
            feature_repo=location.cache,
            snapshots=location.url,
            store=location.store.model_copy(update={"cache": location.cache}),
            state=location.cache,
            experiment=Experiment(name="e", salt="s", start_ms=0, end_ms=1, arms=arms, control="a"),
        )
        self.swapper = Swapper(settings, list, self.metrics, self.clock, throw=lambda: 1.0)

    def look(self) -> str:
        """Let it look, and give the version that serves then."""
        asyncio.run(self.swapper.check())
        serves = self.swapper.models.get(MODEL)
        return serves.manifest.version if serves else ""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may stop."""
    need_servers()
    if s3.binary(s3.default_home()) is None and s3.go() is None:
        pytest.skip("there is neither versitygw nor go to build it")
    s3.install(s3.default_home())
    with s3.start(s3.default_home(), tmp_path / "s3", *S3_KEYS) as server:
        s3.bucket(server.directory, "bucket")
        yield server


def test_it_follows_publications_deltas_trials_and_rollbacks(s3_location: Location) -> None:
    replica = Replica(s3_location)
    assert replica.look() == ""
    snapshot.write(s3_location, make_snapshot())
    snapshot.publish(s3_location, MODEL, "v000001")
    assert replica.look() == "v000001"
    delta.write(s3_location, make_delta())
    snapshot.publish(s3_location, MODEL, "v000001+001")
    assert replica.look() == "v000001+001"
    snapshot.write(s3_location, make_snapshot(number=2))
    canary.try_out(s3_location, MODEL, Canary("v000002", 0.5, "v000002"))
    assert replica.look() == "v000001+001"
    assert replica.swapper.canaries[MODEL].model.manifest.version == "v000002"
    retention.roll_back(s3_location, MODEL, "v000001", "why")
    assert replica.look() == "v000001"
    assert not replica.swapper.canaries
    fresh = Replica(Location(s3_location.url, s3_location.store, s3_location.cache / "other"))
    assert fresh.look() == "v000001"
    replica.swapper.close()
    fresh.swapper.close()


def test_it_serves_on_while_the_store_is_away_and_follows_once_it_is_back(server: Server, tmp_path: Path) -> None:
    location = s3_at(server, "s3://bucket/x", tmp_path / "cache")
    snapshot.write(location, make_snapshot())
    snapshot.publish(location, MODEL, "v000001")
    replica = Replica(location)
    assert replica.look() == "v000001"
    server.stop()
    assert replica.look() == "v000001"
    assert "the connection was refused" in replica.swapper.status()[0].error
    server.start()
    snapshot.write(location, make_snapshot(number=2))
    snapshot.publish(location, MODEL, "v000002")
    assert replica.look() == "v000002"
    assert replica.swapper.status()[0].error == ""
    replica.swapper.close()


def test_what_is_damaged_on_the_store_is_tried_again_until_it_is_repaired(s3_location: Location) -> None:
    snapshot.write(s3_location, make_snapshot())
    snapshot.publish(s3_location, MODEL, "v000001")
    replica = Replica(s3_location)
    assert replica.look() == "v000001"
    snapshot.write(s3_location, make_snapshot(number=2))
    objects = connect(s3_location)
    (key,) = (stat.key for stat in objects.under(f"{MODEL}/v000002/") if "tower.onnx" in stat.key)
    whole = objects.get(key)
    assert whole is not None
    objects.put(key, whole.content[:-1])
    snapshot.publish(s3_location, MODEL, "v000002")
    assert replica.look() == "v000001"
    assert "tower.onnx does not match its checksum" in replica.swapper.status()[0].error
    objects.put(key, whole.content)
    assert replica.look() == "v000001"  # it waits
    replica.clock.advance(2_000)
    assert replica.look() == "v000002"
    replica.swapper.close()
