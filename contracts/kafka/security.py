"""What `kafka.security` says: can it be used, and why may a broker have refused it. No password is ever said."""

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

from kafka import KafkaConsumer
from pydantic import SecretStr

from contracts.config.settings import KafkaSettings, SettingsError

Security = Mapping[str, SecretStr | str | int | bool | None]

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
WITH_PASSWORD = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")
PROBE_TIMEOUT_S = 5.0


def check(security: Security) -> None:
    """See that the client can work with these settings. It would try them for seconds, and quote them in errors.

    Raises:
        SettingsError: a setting does not exist, is missing, or names a file that cannot be used.

    """
    for name in security:
        if name != "security_protocol" and (
            not name.startswith(("sasl_", "ssl_")) or name not in KafkaConsumer.DEFAULT_CONFIG
        ):
            raise SettingsError(f"kafka.security.{name}: there is no such setting.")
    protocol = _protocol(security)
    if protocol not in PROTOCOLS:
        raise SettingsError(f"kafka.security.security_protocol: '{protocol}' is none of {', '.join(PROTOCOLS)}.")
    if protocol.startswith("SASL"):
        _check_login(security)
    if protocol.endswith("SSL"):
        _context(security)


def refusal(settings: KafkaSettings) -> str:
    """Why no connection came about, as far as can be seen from here; one sentence."""
    address = next((one for one in settings.bootstrap_servers.split(",") if _listens(one)), None)
    if address is None:
        return f"No Kafka broker answers at {settings.bootstrap_servers}."
    security = settings.security
    protocol = _protocol(security)
    if protocol.endswith("SSL"):
        tls_problem = _handshake(address, security)
        if tls_problem:
            return tls_problem
    if protocol.startswith("SASL"):
        return (
            f"The broker at {address} does not let the client in: see sasl_mechanism ({security['sasl_mechanism']}),"
            f" the user ({security.get('sasl_plain_username')}) and the password in kafka.security."
        )
    return f"What listens at {address} does not answer as a Kafka broker; it may want other settings in kafka.security."


def _check_login(security: Security) -> None:
    mechanism = security.get("sasl_mechanism")
    if not mechanism:
        raise SettingsError("kafka.security.sasl_mechanism: it is missing, and security_protocol asks for a login.")
    if mechanism in WITH_PASSWORD:
        for name in ("sasl_plain_username", "sasl_plain_password"):
            if not security.get(name):
                raise SettingsError(f"kafka.security.{name}: it is missing, and {mechanism} needs it.")


def _context(security: Security) -> ssl.SSLContext:
    """The TLS context that the client will make of these settings."""
    for name in FILES:
        path = security.get(name)
        if path:
            try:
                Path(str(path)).open("rb").close()
            except OSError as error:
                raise SettingsError(f"kafka.security.{name}: cannot read {path}: {error.strerror}.") from error
    name = "ssl_cafile"
    try:
        context = ssl.create_default_context(cafile=_text(security, name))
        context.check_hostname = security.get("ssl_check_hostname") is not False
        name = "ssl_certfile"
        certificate = _text(security, name)
        if certificate:
            context.load_cert_chain(certificate, _text(security, "ssl_keyfile"), _text(security, "ssl_password") or "")
    except ssl.SSLError as error:
        raise SettingsError(f"kafka.security.{name}: {security[name]} cannot be used for TLS.") from error
    return context


def _handshake(address: str, security: Security) -> str | None:
    """What is wrong with TLS; None where nothing is."""
    host, port = _split(address)
    try:
        with (
            socket.create_connection((host, port), PROBE_TIMEOUT_S) as plain,
            _context(security).wrap_socket(plain, server_hostname=host),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        return (
            f"The certificate of the broker at {address} is not trusted ({error.verify_message.rstrip('.')});"
            " kafka.security.ssl_cafile names the file of its CA."
        )
    except OSError:
        return f"The broker at {address} does not answer with TLS, which kafka.security.security_protocol asks for."


def _listens(address: str) -> bool:
    try:
        with socket.create_connection(_split(address), PROBE_TIMEOUT_S):
            return True
    except (OSError, ValueError):
        return False


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.strip().rpartition(":")
    return host.strip("[]"), int(port)


def _protocol(security: Security) -> str:
    return str(security.get("security_protocol") or "PLAINTEXT")


def _text(security: Security, name: str) -> str | None:
    value = security.get(name)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return None if value is None else str(value)
