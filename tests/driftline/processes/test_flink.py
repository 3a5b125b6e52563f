"""What can be wrong before a job runs is one sentence each; the job's own tests are `tests/stream/test_flink.py`."""

import os
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from contracts.config.settings import KafkaSettings, SettingsError, dump
from contracts.config.store import Location, StoreSettings
from contracts.storage.remote import connect
from driftline.cli.app import app
from driftline.errors import UsageError
from driftline.processes import flink, flink_job, flink_store
from driftline.processes.server import Server
from stream.flink import options
from tests.conftest import own_topics
from tests.stream.stream_cases import settings_for

KAFKA = KafkaSettings(bootstrap_servers="127.0.0.1:1")


def java(directory: Path, version: str) -> None:
    """A Java of some version, without a compiler."""
    (directory / "bin").mkdir()
    program = directory / "bin" / "java"
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    program.chmod(0o755)


def test_without_java_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"Apache Flink needs Java 17 or newer, and JAVA_HOME .* has none\."):
        flink.install(tmp_path / "home")


def test_an_old_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(tmp_path, "11.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"Apache Flink needs Java 17 or newer, and .* is 11\."):
        flink.install(tmp_path / "home")


def test_a_java_without_compiler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(tmp_path, "17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/nowhere")
    (tmp_path / "bin" / "java").write_text("#!/bin/sh\nprintf 'version \"17.0.1\"' >&2\n")
    with pytest.raises(UsageError, match=r"needs the Java compiler, and there is no javac beside .*; install a JDK\."):
        flink.install(tmp_path / "home")


def test_what_is_not_installed_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not installed in .*; run `driftline flink install`\."):
        flink.Cluster(tmp_path, tmp_path / "data").start()


def test_a_job_without_a_cluster_is_refused(tmp_path: Path) -> None:
    dump(settings_for(KAFKA, tmp_path), tmp_path / "settings.yaml")
    home = ["--home", str(tmp_path)]
    found = CliRunner().invoke(app, ["flink", "submit", "-s", str(tmp_path / "settings.yaml"), *home])
    assert isinstance(found.exception, UsageError)
    assert str(found.exception).endswith("/data; `driftline flink start` starts one.")
    status = CliRunner().invoke(app, ["flink", "status", *home])
    assert (status.exit_code, "does not run in" in status.output) == (1, True)
    assert CliRunner().invoke(app, ["flink", "stop", *home]).output == "Apache Flink did not run.\n"


def test_the_embedded_broker_is_refused(tmp_path: Path) -> None:
    embedded = settings_for(KAFKA.model_copy(update={"gapless": True, "idempotence": False}), tmp_path)
    with pytest.raises(SettingsError, match=r"which the embedded broker does not have: it needs Apache Kafka"):
        flink_job.submit(flink.Cluster(tmp_path, tmp_path), embedded)


def test_missing_topics_are_named(apache_server: Server) -> None:
    with pytest.raises(SettingsError, match=r"has no topic .*; `driftline init` creates it\."):
        flink_job.prepare_topics(own_topics(apache_server))


def test_security_is_carried_over_to_the_java_client_or_refused() -> None:
    login = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "line",
        "sasl_plain_password": SecretStr('a"b'),
        "ssl_cafile": "/ca.pem",
    }
    found = options.client_properties(KAFKA.model_copy(update={"security": login}))
    assert found["security.protocol"] == "SASL_SSL"
    assert found["sasl.jaas.config"].endswith('ScramLoginModule required username="line" password="a\\"b";')
    assert found["ssl.truststore.location"] == "/ca.pem"
    with pytest.raises(SettingsError, match=r"kafka\.security\.ssl_crlfile: a job on Flink cannot use it"):
        options.client_properties(KAFKA.model_copy(update={"security": {"ssl_crlfile": "/crl.pem"}}))


def test_the_newest_whole_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    for age, (name, whole) in enumerate((("a/chk-9", True), ("b/chk-2", True), ("b/chk-3", False))):
        (tmp_path / name).mkdir(parents=True)
        if whole:
            (tmp_path / name / "_metadata").touch()
            os.utime(tmp_path / name / "_metadata", (age, age))
    assert flink_job.newest(str(tmp_path), StoreSettings()) == (tmp_path / "b" / "chk-2").as_uri()


def test_the_newest_whole_checkpoint_on_a_store_is_gone_on_from(s3_location: Location) -> None:
    store, place = s3_location.store, s3_location.url
    assert flink_job.newest(place, store) is None
    for key in ("a/chk-9/_metadata", "b/chk-2/_metadata", "b/chk-10/_metadata", "b/chk-11/state"):
        connect(s3_location).put(key, b"x")
    assert flink_job.newest(f"{place}/", store) == f"{place}/b/chk-10"
    assert flink_store.is_whole(f"{place}/a/chk-9", store)
    assert not flink_store.is_whole(f"{place}/b/chk-11", store)


def test_a_store_that_flink_would_not_reach_is_refused(tmp_path: Path, s3_location: Location) -> None:
    with pytest.raises(UsageError, match=r"gs://bucket/x: a cluster of this machine keeps checkpoints in a folder or"):
        flink_store.require_address("gs://bucket/x")
    with pytest.raises(UsageError, match=r"s3://BUCKET/PREFIX is wanted, without a port"):
        flink_store.require_address("s3://bucket:1/x")
    started_with = flink_store.configuration(s3_location.store)
    flink_store.require_reached(started_with, s3_location.store, tmp_path)
    with pytest.raises(UsageError, match=r"was not started for the store of these settings; stop it and start it by"):
        flink_store.require_reached({}, s3_location.store, tmp_path)
    secret = s3_location.store.secret_access_key
    assert secret is not None
    assert secret.get_secret_value() not in str(started_with)
