"""What a store refuses, or says that it is not asked for, is one sentence, and nothing is lost."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from contracts.config import settings as settings_module
from contracts.config.settings import Settings, SettingsError, StoreSettings
from contracts.config.store import Location
from contracts.snapshots import delta, retention, snapshot
from contracts.snapshots.room import open_room
from contracts.snapshots.snapshot import SnapshotError
from contracts.snapshots.stored import ORPHAN_MS, Stored
from contracts.storage.objects import AwayError, MissingError, StoreError
from contracts.storage.remote import connect
from driftline.processes.server import Server
from tests.conftest import S3_KEYS, s3_at
from tests.contracts.snapshot_cases import make, write_line

MODEL = "two_tower"


@contextmanager
def answering(status: int, code: str) -> Iterator[str]:
    """A server that gives this refusal to every request; its address."""

    class Handler(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_DELETE = refuse  # noqa: N815  the base class's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_wrong_bucket_and_wrong_keys(s3_server: Server, s3_location: Location, tmp_path: Path) -> None:
    for url, keys, sentence in (
        ("s3://no-such-bucket/x", S3_KEYS, "there is no such bucket"),
        (s3_location.url, (S3_KEYS[0], "another-secret"), "the store refuses the secret key"),
        (s3_location.url, ("nobody", S3_KEYS[1]), "the store does not know these credentials"),
    ):
        root = s3_at(s3_server, url, tmp_path, keys)
        for act in (
            lambda root=root: snapshot.write(root, make()),
            lambda root=root: snapshot.models(root),
            lambda root=root: snapshot.live(root, MODEL),
        ):
            with pytest.raises(StoreError) as refused:
                act()  # type: ignore[no-untyped-call]
            assert sentence in str(refused.value)
            assert S3_KEYS[1] not in str(refused.value)
            assert "another-secret" not in str(refused.value)
            assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (403, "AccessDenied", "no permission"),
        (403, "RequestTimeTooSkewed", "clock differs"),
        (403, "Unheard", "no permission"),
        (501, "NotImplemented", "cannot write conditionally"),
        (400, "ExpiredToken", "have expired"),
    ],
)
def test_refusals(status: int, code: str, sentence: str, tmp_path: Path) -> None:
    with answering(status, code) as endpoint:
        store = StoreSettings(
            endpoint=endpoint, region="r", access_key_id="me", secret_access_key=SecretStr("x"), retry_for_s=0.1
        )
        objects = connect(Location("s3://bucket/x", store, tmp_path))
        for act in (lambda: objects.get("a"), lambda: objects.create("a", b""), lambda: objects.swap("a", b"", '"e"')):
            with pytest.raises(StoreError, match=sentence) as refused:
                act()
            assert not isinstance(refused.value, AwayError | MissingError)


def test_a_store_that_is_away_says_so(tmp_path: Path) -> None:
    store = StoreSettings(
        endpoint="http://127.0.0.1:9", region="r", access_key_id="me", secret_access_key=SecretStr("x"), retry_for_s=0.1
    )
    with pytest.raises(AwayError, match="the connection was refused"):
        connect(Location("s3://bucket/x", store, tmp_path)).get("a")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"v000001", "is not JSON"),
        (b'{"live": "v000001"}', "has format None"),
        (b'{"format": 2, "live": "v000001"}', "has format 2; this build reads 1"),
        (b'{"format": 1}', "is none of driftline's"),
        (b'{"format": 1, "live": "../x", "held": null, "trial": null, "pinned": []}', "is no version"),
    ],
)
def test_a_foreign_or_newer_state_is_told_and_left(s3_location: Location, content: bytes, sentence: str) -> None:
    snapshot.write(s3_location, make())
    objects = connect(s3_location)
    objects.put(f"{MODEL}/STATE.json", content)
    for act in (
        lambda: snapshot.publish(s3_location, MODEL, "v000001"),
        lambda: snapshot.live(s3_location, MODEL),
        lambda: retention.prune(s3_location, MODEL, 0, 0),
        lambda: retention.roll_back(s3_location, MODEL, "v000001", "why"),
    ):
        with pytest.raises(SnapshotError, match=sentence):
            act()
    assert sentence in open_room(s3_location).glance(MODEL).live_problem
    blob = objects.get(f"{MODEL}/STATE.json")
    assert blob is not None
    assert blob.content == content
    assert snapshot.read(s3_location, MODEL, "v000001").item_ids.size == 3


def test_half_a_file_and_half_a_version_are_refused(s3_location: Location) -> None:
    write_line(s3_location, deltas=1)
    objects = connect(s3_location)
    (vectors,) = (s.key for s in objects.under(f"{MODEL}/v000001/") if "item_vectors" in s.key)
    whole = objects.get(vectors)
    assert whole is not None
    objects.put(vectors, whole.content[:-1])
    with pytest.raises(SnapshotError, match=r"item_vectors\.npy does not match its checksum"):
        delta.read(s3_location, MODEL, "v000001+001")
    objects.delete([vectors])
    with pytest.raises(SnapshotError, match="cannot be fetched"):
        delta.read(s3_location, MODEL, "v000001+001")
    objects.put(vectors, whole.content)
    assert delta.read(s3_location, MODEL, "v000001+001").item_ids.size == 4
    objects.delete([f"{MODEL}/v000001/manifest.json"])
    with pytest.raises(SnapshotError, match="There is no snapshot"):
        snapshot.publish(s3_location, MODEL, "v000001+001")


def test_a_damaged_copy_in_the_cache_is_fetched_anew(s3_location: Location) -> None:
    snapshot.write(s3_location, make())
    snapshot.read(s3_location, MODEL, "v000001")
    (copy,) = s3_location.cache.rglob("item_vectors.npy")
    copy.write_bytes(b"\0" * copy.stat().st_size)
    with pytest.raises(SnapshotError, match="does not match its checksum"):
        snapshot.read(s3_location, MODEL, "v000001")
    assert snapshot.read(s3_location, MODEL, "v000001").item_ids.size == 3


def test_what_nobody_has_read_for_an_hour_leaves_the_cache(s3_location: Location) -> None:
    for version in ("v000001", "v000002"):
        snapshot.write(s3_location, make(version))
    snapshot.read(s3_location, MODEL, "v000001")
    (first,) = s3_location.cache.rglob("v000001")
    os.utime(first, (0, 0))
    snapshot.read(s3_location, MODEL, "v000002")
    assert not first.exists()


def test_orphans_go_by_age_and_a_removal_that_died_is_finished(tmp_path: Path) -> None:
    connect.cache_clear()
    objects = connect(Location("memory:///orphans", StoreSettings(), tmp_path))
    room = Stored(objects, "memory", tmp_path)
    objects.put(f"{MODEL}/v000001/tower.onnx.0", b"half")
    room.change(MODEL, lambda _: [("live", "v000009")])
    assert room.remove(MODEL, lambda _: []) == []
    assert len(objects.under(f"{MODEL}/v000001/")) == 1  # it may be on its way
    old = room._objects

    class Later:
        """The same store when the newest object is more than an hour younger than the orphan."""

        def __getattr__(self, name: str) -> object:
            return getattr(old, name)

        def under(self, prefix: str) -> list[object]:
            return [s._replace(written_ms=0 if "v000001" in s.key else ORPHAN_MS + 1) for s in old.under(prefix)]

    room._objects = Later()  # type: ignore[assignment]
    room.remove(MODEL, lambda _: [])
    assert objects.under(f"{MODEL}/v000001/") == []


def load(path: Path, text: str, **variables: str) -> Settings:
    path.write_text("kafka: {bootstrap_servers: h:1}\nfeature_repo: f\nstate: s\n" + text)
    return settings_module.load(path, variables)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("ftp://host/x", "no store that is known"),
        ("s3://", "names no bucket"),
        ("s3:/bucket/x", "s3://BUCKET/PREFIX is wanted"),
        ("s3://me:secret@bucket/x", "credentials and options are given in `store`"),
        ("file://host/x", "names another machine"),
        ("file://", "names no directory"),
        ("s3://bucket/a/../b", "without a port, control characters"),
        ("s3://bucket/%2e%2e/b", "without a port, control characters"),
        ("s3://bucket:80/b", "without a port, control characters"),
        ('"s3://bucket/a\\nb"', "without a port, control characters"),
    ],
)
def test_a_place_that_is_none_is_refused_at_the_start(tmp_path: Path, value: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as refused:
        load(tmp_path / "s.yaml", f"snapshots: {value}\n")
    assert "secret@" not in str(refused.value)


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "minio:9000", "ftp://h:1", "http://", "http://me:secret@h:1", "http://h:x"]
)
def test_an_endpoint_that_is_no_address_is_refused_at_the_start(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(SettingsError, match=r"endpoint is http://HOST\[:PORT\] or https://HOST") as refused:
        load(tmp_path / "s.yaml", f"snapshots: s3://bucket/x\nstore: {{endpoint: '{endpoint}'}}\n")
    assert "secret@" not in str(refused.value)


@pytest.mark.parametrize("name", ["region", "access_key_id"])
def test_what_no_header_can_have_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    store = {"access_key_id": "me", "secret_access_key": "s", name: "a\nb"}
    with pytest.raises(SettingsError, match=f"{name} has a character in it that none has"):
        load(tmp_path / "s.yaml", f"snapshots: s3://bucket/x\nstore: {store}\n".replace("'", '"'))


def test_what_no_header_can_have_in_the_environment_is_one_sentence(
    s3_location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    store = s3_location.store.model_copy(update={"access_key_id": None, "secret_access_key": None})
    connect.cache_clear()
    with pytest.raises(StoreError, match="whether the credentials and the region") as refused:
        connect(replace(s3_location, store=store)).folders()
    assert "a-secret" not in str(refused.value)


def test_a_version_in_the_cache_of_another_is_read(s3_location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot.write(s3_location, make("v000001"))
    before = snapshot.read(s3_location, MODEL, "v000001")

    def refused(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "utime", refused)
    assert snapshot.read(s3_location, MODEL, "v000001").manifest == before.manifest


def test_places_and_secrets_of_the_settings(tmp_path: Path) -> None:
    assert load(tmp_path / "s.yaml", "snapshots: file:///a%20b/c\n").snapshot_root == Path("/a b/c")
    assert load(tmp_path / "s.yaml", "snapshots: a/b\n").snapshot_root == Path("a/b")
    secret = {"DRIFTLINE_STORE__SECRET_ACCESS_KEY": "hidden", "DRIFTLINE_STORE__ACCESS_KEY_ID": "me"}
    settings = load(tmp_path / "s.yaml", "snapshots: s3://bucket/x/\n", **secret)
    root = settings.snapshot_root
    assert isinstance(root, Location)
    assert (str(root), root.cache) == ("s3://bucket/x", Path("s/cache"))
    assert "hidden" not in f"{settings!r} {root!r} {settings.model_dump_json()}"
    settings_module.dump(settings, tmp_path / "dumped.yaml")
    assert "hidden" not in (tmp_path / "dumped.yaml").read_text()
    again = settings_module.load(tmp_path / "dumped.yaml", {})
    assert again.snapshot_root == replace(root, store=again.store)
    assert again.store.secret_access_key == SecretStr("hidden")
    with pytest.raises(SettingsError, match="go together"):
        load(tmp_path / "s.yaml", "snapshots: s3://bucket/x\nstore: {access_key_id: me}\n")
