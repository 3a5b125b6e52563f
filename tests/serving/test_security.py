"""Who gets through to a replica: certificates, tokens, ports. What cannot be used is a sentence at the start."""

import asyncio
import json
import subprocess
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from contracts.config.settings import ServingSettings, SettingsError, TlsSettings, dump
from driftline.processes.supervisor import Child
from serving import security
from serving.calls import SERVICE
from serving.client import ClientTls, RecallClient, RecallError
from tests.serving.replica_cases import KNOWN_USER
from tests.serving.replicas import LONG_S, Authority, Cluster, Pair, address_of, cluster, driftline

TOKEN = "s3cret-of-the-callers"  # noqa: S105


@dataclass
class Guarded:
    """A real replica that wants a certificate and a token, and those that it takes."""

    cluster: Cluster
    child: Child
    authority: Authority
    tls: ClientTls

    def recall(self, *, token: str | None = TOKEN, tls: ClientTls | None = None) -> str:
        """The snapshot that answered."""
        with RecallClient([address_of(self.child)], deadline_s=LONG_S, tls=tls or self.tls, token=token) as client:
            return client.recall(KNOWN_USER, 3, time_ms=1000).snapshot_version

    def channel(self) -> grpc.Channel:
        return grpc.secure_channel(address_of(self.child), self.tls.credentials())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    token_file = directory / "token"
    token_file.write_text(f"  {TOKEN}\n")
    server, client = authority.sign("server"), authority.sign("client")
    tls = TlsSettings(certificate=server.certificate, key=server.key, client_ca=authority.own.certificate)
    with cluster(directory) as made:
        (child,) = made.start("guarded", tls=tls, token_file=token_file)
        yield Guarded(made, child, authority, ClientTls(authority.own.certificate, client.certificate, client.key))


def test_a_certificate_and_the_token_get_through(replica: Guarded) -> None:
    assert replica.recall() == "v000001"


@pytest.mark.parametrize("token", [None, "another", TOKEN[:-1], TOKEN + "x", TOKEN.upper()])
def test_another_token_does_not(replica: Guarded, token: str | None) -> None:
    with pytest.raises(RecallError) as caught:
        replica.recall(token=token)
    assert caught.value.code == grpc.StatusCode.UNAUTHENTICATED
    assert caught.value.message == security.DENIED


@pytest.mark.parametrize("value", [TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", "", f"Bearer {TOKEN} {TOKEN}"])
def test_the_token_has_to_be_a_bearer_token(replica: Guarded, value: str) -> None:
    with replica.channel() as channel:
        ask = channel.unary_unary(f"/{SERVICE}/Recall")
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"", metadata=(("authorization", value),), timeout=LONG_S)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_no_certificate_or_a_stranger_s_does_not_get_through(replica: Guarded, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger").sign("stranger")
    known = replica.authority.own.certificate
    for shown in (ClientTls(known), ClientTls(known, stranger.certificate, stranger.key)):
        with pytest.raises(RecallError):
            _first_answer(replica, shown)


def test_a_client_does_not_talk_to_a_replica_that_it_does_not_know(replica: Guarded, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other").own.certificate
    with pytest.raises(RecallError, match="UNAVAILABLE"):
        _first_answer(replica, replace(replica.tls, ca=other))
    with pytest.raises(RecallError, match="UNAVAILABLE"):
        _first_answer(replica, replace(replica.tls, server_name="another.example"))
    assert replica.recall(tls=replace(replica.tls, server_name="localhost")) == "v000001"


def _first_answer(replica: Guarded, tls: ClientTls) -> None:
    address = address_of(replica.child)
    with RecallClient([address], deadline_s=LONG_S, tls=tls, token=TOKEN, wait_for_ready=False) as client:
        client.recall(KNOWN_USER, 3)


def test_the_command_shows_certificate_and_token(replica: Guarded, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "wrong").write_text("wrong")
    tls = ("--ca", str(replica.tls.ca), "--cert", str(replica.tls.certificate), "--key", str(replica.tls.key))
    ask = ("recall", str(KNOWN_USER), "--target", address_of(replica.child), *tls)
    assert json.loads(driftline(*ask, "--token-file", str(tmp_path / "token")).stdout)["snapshot_version"] == "v000001"
    refused = driftline(*ask, "--token-file", str(tmp_path / "wrong"))
    assert (refused.returncode, refused.stderr) == (2, f"driftline: UNAUTHENTICATED: {security.DENIED}\n")
    absent = driftline(*ask, "--token-file", str(tmp_path / "absent"))
    assert (absent.returncode, len(absent.stderr.splitlines())) == (2, 1)


def test_health_needs_no_token_but_reflection_does(replica: Guarded) -> None:
    with replica.channel() as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        answered = health_pb2_grpc.HealthStub(channel).Check(request, timeout=LONG_S)
        assert answered.status == health_pb2.HealthCheckResponse.SERVING
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as caught:
            list(reflect(iter([asked]), timeout=LONG_S))
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        bearer = (("authorization", f"bearer {TOKEN}"),)
        (answer,) = reflect(iter([asked]), timeout=LONG_S, metadata=bearer)
        assert SERVICE in {service.name for service in answer.list_services_response.service}


def test_a_port_that_is_taken_ends_a_second_replica_with_one_sentence(replica: Guarded, tmp_path: Path) -> None:
    settings = replica.cluster.settings
    port = int(replica.child.facts["port"])
    dump(settings.model_copy(update={"serving": ServingSettings(port=port)}), tmp_path / "settings.yaml")
    ended = driftline("serve", "--settings", str(tmp_path / "settings.yaml"))
    assert ended.returncode == 2
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert line["event"] == f"serving.port: port {port} of 127.0.0.1 is taken."
    assert "Traceback" not in ended.stderr


def test_the_token_is_in_no_log(replica: Guarded) -> None:
    """After all that the tests before have sent. Run alone, it sends one wrong token of its own."""
    with pytest.raises(RecallError):
        replica.recall(token=f"{TOKEN}?")
    assert TOKEN not in replica.child.log.read_text()


async def _served(settings: ServingSettings, ask: Callable[[str], Awaitable[None]]) -> None:
    """Ask the health service of a server in this process, bound as the settings say."""
    server = grpc.aio.server(interceptors=security.interceptors(settings), options=security.options(settings))
    port = security.bind(server, settings)
    service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
    reflection.enable_server_reflection((SERVICE,), server)
    await server.start()
    try:
        await ask(f"localhost:{port}")
    finally:
        await server.stop(0)


def test_tls_without_certificates_of_clients(authority: Authority) -> None:
    pair = authority.sign("plain")
    settings = ServingSettings(tls=TlsSettings(certificate=pair.certificate, key=pair.key))

    async def ask(address: str) -> None:
        trusted = ClientTls(authority.own.certificate).credentials()
        async with grpc.aio.secure_channel(address, trusted) as channel:
            request = health_pb2.HealthCheckRequest(service="")
            answered = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=LONG_S)
            assert answered.status == health_pb2.HealthCheckResponse.SERVING
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_pb2_grpc.HealthStub(channel).Check(request, timeout=LONG_S)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

    asyncio.run(_served(settings, ask))


def test_a_method_that_does_not_exist_wants_the_token_too(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)

    async def ask(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            for metadata, code in (
                ((), grpc.StatusCode.UNAUTHENTICATED),
                ((("authorization", f"Bearer {TOKEN}"),), grpc.StatusCode.UNIMPLEMENTED),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary("/no.such.Service/Method")(b"", metadata=metadata, timeout=LONG_S)
                assert caught.value.code() == code

    asyncio.run(_served(ServingSettings(token_file=tmp_path / "token"), ask))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read {path}: No such file or directory."),
        (b"", "{path} is empty."),
        (b" \n", "{path} is empty."),
        (b"two words", "{path} holds something else than tokens of printable ASCII, one a line."),
        ("schlüssel".encode(), "{path} holds something else than tokens of printable ASCII, one a line."),
        (b"\xff\xfe", "{path} holds something else than tokens of printable ASCII, one a line."),
    ],
)
def test_a_token_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        security.interceptors(ServingSettings(token_file=path))
    assert str(caught.value) == f"serving.token_file: {said.format(path=path)}"


def test_certificates_that_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    pair, other = authority.sign("one"), authority.sign("two")
    garbage, absent = tmp_path / "garbage.pem", tmp_path / "absent.pem"
    garbage.write_text("garbage")
    locked = tmp_path / "locked.key"
    openssl = ("openssl", "ec", "-in", str(pair.key), "-aes256", "-passout", "pass:x", "-out", str(locked))
    subprocess.run(openssl, capture_output=True, check=True)

    def said(pair: Pair, client_ca: Path | None = None) -> str:
        tls = TlsSettings(certificate=pair.certificate, key=pair.key, client_ca=client_ca)
        with pytest.raises(SettingsError) as caught:
            security.credentials(ServingSettings(tls=tls))
        return str(caught.value)

    certificate, key = pair
    together = "are not a certificate and its unencrypted key in PEM."
    assert said(Pair(absent, key)) == f"serving.tls.certificate: cannot read {absent}: No such file or directory."
    assert said(Pair(certificate, absent)) == f"serving.tls.key: cannot read {absent}: No such file or directory."
    assert said(Pair(certificate, other.key)) == f"serving.tls.key: {other.key} is not the key of {certificate}."
    assert said(Pair(garbage, key)) == f"serving.tls: {garbage} and {key} {together}"
    assert said(Pair(certificate, garbage)) == f"serving.tls: {certificate} and {garbage} {together}"
    assert said(Pair(certificate, locked)) == f"serving.tls: {certificate} and {locked} {together}"
    assert said(pair, absent) == f"serving.tls.client_ca: cannot read {absent}: No such file or directory."
    assert said(pair, garbage) == f"serving.tls.client_ca: {garbage} holds no certificates in PEM."


def test_no_tls_is_no_credentials() -> None:
    assert security.credentials(ServingSettings()) is None


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("192.0.2.1", "serving.host: cannot listen on 192.0.2.1: Cannot assign requested address."),
        ("no host", "serving.host: 'no host' is no address of a machine."),
    ],
)
def test_a_host_that_is_not_this_machine_s(host: str, said: str) -> None:
    async def bind() -> None:
        server = grpc.aio.server()
        with pytest.raises(SettingsError) as caught:
            security.bind(server, ServingSettings(host=host, unprotected=True))
        assert str(caught.value) == said
        await server.stop(0)

    asyncio.run(bind())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])  # noqa: S104
def test_a_port_has_one_owner(host: str) -> None:
    async def ask(address: str) -> None:
        port = int(address.rpartition(":")[2])
        second = grpc.aio.server(options=security.options(ServingSettings()))
        with pytest.raises(SettingsError, match=f"port {port} of {host} is taken"):
            security.bind(second, ServingSettings(host=host, port=port, unprotected=True))
        await second.stop(0)

    asyncio.run(_served(ServingSettings(host=host, unprotected=True), ask))


def test_of_more_calls_than_may_wait_at_the_door_the_rest_are_cut_off_while_the_replica_is_busy() -> None:
    calls, held = 100, 10
    may_be_held = held + 1  # those at the door, and one that gRPC has given to the loop, which is busy
    begun, let_go, cut_off = threading.Event(), threading.Event(), threading.Semaphore(0)

    async def busy(_request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        begun.set()
        let_go.wait(LONG_S)  # nothing else runs on the loop meanwhile, as while a batch is answered
        return b""

    def fire(address: str) -> Counter[str]:
        with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
            method = channel.unary_unary("/some.Service/Method")
            first = method.future(b"", timeout=LONG_S)
            assert begun.wait(LONG_S)
            rest = [method.future(b"", timeout=LONG_S) for _ in range(calls)]
            for call in rest:
                call.add_done_callback(lambda _: cut_off.release())
            try:
                assert all(cut_off.acquire(timeout=LONG_S) for _ in range(calls - may_be_held))
            finally:
                let_go.set()
            return Counter(call.code().name for call in (first, *rest))

    async def serve() -> Counter[str]:
        settings = ServingSettings(pending_calls=held)
        server = grpc.aio.server(options=security.options(settings))
        method = grpc.unary_unary_rpc_method_handler(busy)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("some.Service", {"Method": method}),))
        port = security.bind(server, settings)
        await server.start()
        codes = await asyncio.get_running_loop().run_in_executor(None, fire, f"127.0.0.1:{port}")
        await server.stop(0)
        return codes

    codes = asyncio.run(serve())
    assert codes.keys() == {"OK", "CANCELLED"}
    assert codes["CANCELLED"] >= calls - may_be_held
