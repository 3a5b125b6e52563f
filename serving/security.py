"""What stands before the service: the port, its encryption, and who may ask.

Files that are renewed are taken up while the replica serves: certificates at the next handshake, tokens at the next
look. Renewed ones that cannot be used are said and change nothing. No token is ever said.
"""

import errno
import hmac
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc
import structlog
from grpc_health.v1 import health

from contracts.config.regular_file import read_regular
from contracts.config.settings import ServingSettings, SettingsError, TlsSettings

HEADER = "authorization"
SCHEME = "bearer "
LARGEST = 1 << 20  # bytes of a file of certificates or tokens
OPEN_TO_ALL = f"/{health.SERVICE_NAME}/"  # who balances load or restarts replicas has no token
DENIED = "A bearer token that this replica accepts is needed in the metadata 'authorization'."

log = structlog.get_logger()
T = TypeVar("T")
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class Renewed(Generic[T]):
    """What is made of some files, made again when any of them has changed."""

    def __init__(self, paths: Sequence[Path], make: Callable[[], T]) -> None:
        """Make it once.

        Raises:
            SettingsError: a file cannot be used; later it is said in the log, and what was made before holds.

        """
        self._paths = paths
        self._make = make
        self._stamps = self._looked()
        self.value = make()

    def look(self) -> bool:
        """Whether the files have changed and something new could be made of them."""
        stamps = self._looked()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            self.value = self._make()
        except SettingsError as error:
            log.warning("renewed files not taken up; what they held before is in force", why=str(error))
            return False
        log.info("renewed files taken up", files=[str(path) for path in self._paths])
        return True

    def _looked(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


class BearerToken(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc brings no types
    """Turns away every call without one of the tokens, but health checks."""

    def __init__(self, path: Path) -> None:
        self.tokens = Renewed([path], partial(_tokens, path))

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Hand the call on, or answer UNAUTHENTICATED, for methods that do not exist too."""
        metadata = handler_call_details.invocation_metadata
        if handler_call_details.method.startswith(OPEN_TO_ALL) or any(
            key == HEADER and self._is_right(value) for key, value in metadata
        ):
            return await continuation(handler_call_details)
        # A handler of streams answers calls of every kind before it has read a message.
        return grpc.stream_stream_rpc_method_handler(_deny)

    def _is_right(self, value: str) -> bool:
        scheme, token = value[: len(SCHEME)], value[len(SCHEME) :]
        # compare_digest: the time it takes says nothing about how much of a guess was right.
        said = token.strip().encode()
        right = [hmac.compare_digest(said, each) for each in self.tokens.value]
        return scheme.lower() == SCHEME and any(right)


async def _deny(_requests: object, context: grpc.aio.ServicerContext) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, DENIED)


def interceptors(settings: ServingSettings) -> tuple[BearerToken, ...]:
    """What every call passes first; each one's `tokens` want a look now and then.

    Raises:
        SettingsError: the token file cannot be used.

    """
    return () if settings.token_file is None else (BearerToken(settings.token_file),)


def options(settings: ServingSettings) -> list[tuple[str, int]]:
    """A gRPC server's options: message limits, keepalive, one replica a port, and how many may wait at the door."""
    return [
        # gRPC hands one call at a time over, and holds the rest where no queue of ours counts them. Held for long, each
        # comes in when its deadline is nearly over, and the work on it is lost. From half of them on gRPC begins to
        # cut calls off, by chance.
        ("grpc.server.max_pending_requests", (settings.pending_calls + 1) // 2),
        ("grpc.server.max_pending_requests_hard_limit", settings.pending_calls),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # Two replicas on one port would share its calls by chance; the second is to say that the port is taken.
        ("grpc.so_reuseport", 0),
        # A client whose machine has gone is found out within 40 s, and one that pings every 5 s is no abuser.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        # A connection that ends makes a client look its DNS name up again: so it finds replicas that have been added.
        ("grpc.max_connection_age_ms", 10 * 60_000),
        ("grpc.max_connection_age_grace_ms", 30_000),
    ]


def credentials(settings: ServingSettings) -> grpc.ServerCredentials | None:
    """The port's TLS, mutual where `tls.client_ca` is set; None where it is not encrypted.

    Raises:
        SettingsError: a file cannot be used, or key and certificate do not belong together.

    """
    tls = settings.tls
    if tls is None:
        return None
    paths = [path for path in (tls.certificate, tls.key, tls.client_ca) if path is not None]
    renewed = Renewed(paths, partial(_configuration, tls))
    # gRPC asks at each handshake; None: as before. Connections that stand keep what they began with.
    return grpc.dynamic_ssl_server_credentials(
        renewed.value, lambda: renewed.value if renewed.look() else None, tls.client_ca is not None
    )


def _configuration(tls: TlsSettings) -> grpc.ServerCertificateConfiguration:
    key, certificate = _read("serving.tls.key", tls.key), _read("serving.tls.certificate", tls.certificate)
    authority = _read("serving.tls.client_ca", tls.client_ca) if tls.client_ca else None
    _check(tls)
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)


def bind(server: grpc.aio.Server, settings: ServingSettings) -> int:
    """Give a server its port, encrypted where the settings say so; returns the port.

    Raises:
        SettingsError: the port is taken, the host is not this machine's, or the TLS files cannot be used.

    """
    tls = credentials(settings)
    host = settings.host.strip("[]")
    _probe(host, settings.port)
    address = f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"
    try:
        return int(server.add_secure_port(address, tls) if tls else server.add_insecure_port(address))
    except RuntimeError as error:  # somebody took the port after it was probed; gRPC does not say
        raise SettingsError(f"serving.port: cannot listen on {address}.") from error


def _probe(host: str, port: int) -> None:
    """Bind the port and let it go. gRPC does not say why it could not, and prints more than one sentence."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SettingsError(f"serving.host: '{host}' is no address of a machine.") from error
    refused: list[OSError] = []
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise SettingsError(f"serving.port: port {port} of {host} is taken.") from error
            refused.append(error)
    if len(refused) == len(addresses):  # `localhost` is two addresses, and a machine may have one of them
        raise SettingsError(f"serving.host: cannot listen on {host}: {refused[0].strerror}.") from refused[0]


def _tokens(path: Path) -> tuple[bytes, ...]:
    """One a line: while clients go over from a token to the next, both are accepted."""
    tokens = tuple(filter(None, map(bytes.strip, _read("serving.token_file", path).splitlines())))
    if not tokens:
        raise SettingsError(f"serving.token_file: {path} is empty.")
    if not all(0x21 <= byte <= 0x7E for token in tokens for byte in token):
        raise SettingsError(
            f"serving.token_file: {path} holds something else than tokens of printable ASCII, one a line."
        )
    return tokens


def _check(tls: TlsSettings) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password, though an empty one: without any, OpenSSL asks the terminal for that of an encrypted key.
        context.load_cert_chain(tls.certificate, tls.key, "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"serving.tls.key: {tls.key} is not the key of {tls.certificate}.") from error
        raise SettingsError(
            f"serving.tls: {tls.certificate} and {tls.key} are not a certificate and its unencrypted key in PEM."
        ) from error
    if tls.client_ca:
        try:
            context.load_verify_locations(tls.client_ca)
        except ssl.SSLError as error:
            raise SettingsError(f"serving.tls.client_ca: {tls.client_ca} holds no certificates in PEM.") from error


def _read(name: str, path: Path) -> bytes:
    try:
        content = read_regular(path, LARGEST + 1)
    except OSError as error:
        raise SettingsError(f"{name}: cannot read {path}: {error.strerror}.") from error
    if len(content) > LARGEST:
        raise SettingsError(f"{name}: {path} is larger than {LARGEST:,} bytes.")
    return content
