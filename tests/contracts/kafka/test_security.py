"""TLS and a login: settings go through to the client; what is wrong with them is a sentence without a password."""

import gc
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.config.settings import KafkaSettings, SettingsError
from contracts.kafka import bus, consumers
from contracts.kafka.security import Security, check
from driftline.processes import broker
from driftline.processes import kafka as apache_kafka
from driftline.processes.server import Server
from tests.conftest import serve

PASSWORD = "s3cret-of-the-client"  # noqa: S105
STORE_PASSWORD = "of-the-store"  # noqa: S105
LOGIN = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required"
    f' username="broker" password="b" user_broker="b" user_driftline="{PASSWORD}";'
)


def keytool(*arguments: str | Path) -> str:
    java = Path(apache_kafka.java()).resolve()
    done = subprocess.run([java.with_name("keytool"), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself; its private key is in `broker.p12` beside it."""
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    store = ["-alias", "broker", "-keystore", path.with_name("broker.p12"), "-storepass", STORE_PASSWORD]
    names = ["-dname", "CN=localhost", "-ext", "san=ip:127.0.0.1"]
    keytool("-genkeypair", *store, "-storetype", "PKCS12", "-keyalg", "RSA", "-validity", "30", *names)
    path.write_text(keytool("-exportcert", "-rfc", *store))
    return path


@pytest.fixture(scope="module")
def secured(ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An Apache Kafka that wants TLS and a login."""
    properties = {
        "listener.security.protocol.map": "CLIENTS:SASL_SSL,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.clients.plain.sasl.jaas.config": LOGIN,
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(ca.with_name("broker.p12")),
        "ssl.keystore.password": STORE_PASSWORD,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(ca),
    }
    directory = tmp_path_factory.mktemp("secured")
    yield from serve(lambda: apache_kafka.start(apache_kafka.default_home(), directory, extra=properties))


def login(ca: Path) -> dict[str, str | int | bool | None]:
    return {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(ca),
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "driftline",
        "sasl_plain_password": PASSWORD,
    }


def test_admin_producer_and_consumer_get_through(secured: Server, ca: Path) -> None:
    settings = KafkaSettings(bootstrap_servers=secured.address, security=login(ca))
    broker.prepare(settings)
    producer = bus.producer(settings)
    producer.send(settings.topic(bus.ITEMS), key=b"1", value=b"over TLS")
    producer.close()
    assert [record.value for record in consumers.read_to_end(settings, bus.ITEMS, 0, 0)] == [b"over TLS"]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # a refused client leaves its sockets open
@pytest.mark.parametrize("connect", [bus.admin, bus.producer, lambda settings: consumers.consumer(settings, [], None)])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sasl_plain_password": "wr0ng-one"}, r"does not let the client in: .*the user \(driftline\)"),
        ({"ssl_cafile": None}, r"certificate of the broker .* is not trusted .*ssl_cafile"),
        ({"security_protocol": "PLAINTEXT"}, r"does not answer as a Kafka broker; .*kafka\.security"),
    ],
)
def test_who_is_not_let_in_is_told_why(
    secured: Server, ca: Path, monkeypatch: pytest.MonkeyPatch, connect: object, change: Security, complaint: str
) -> None:
    monkeypatch.setattr(bus, "BOOTSTRAP_TIMEOUT_MS", 1500)
    settings = KafkaSettings(bootstrap_servers=secured.address, security=login(ca) | dict(change))
    with pytest.raises(SettingsError, match=complaint) as caught:
        connect(settings)  # type: ignore[operator]
    sentence = str(caught.value)
    del caught
    gc.collect()  # here, and not in a test that would be blamed for those sockets
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert PASSWORD not in sentence
    assert "wr0ng-one" not in sentence


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sasl_plain_pasword": PASSWORD}, r"^kafka\.security\.sasl_plain_pasword: there is no such setting\.$"),
        ({"bootstrap_servers": "h:1"}, r"^kafka\.security\.bootstrap_servers: there is no such setting\.$"),
        ({"security_protocol": "TLS"}, "'TLS' is none of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ({"sasl_mechanism": None}, "sasl_mechanism: it is missing"),
        ({"sasl_plain_password": ""}, "sasl_plain_password: it is missing, and PLAIN needs it"),
        ({"ssl_cafile": "/nowhere/ca.pem"}, r"ssl_cafile: cannot read /nowhere/ca\.pem: No such file"),
        ({"ssl_cafile": __file__}, r"ssl_cafile: .*test_security\.py cannot be used for TLS"),
    ],
)
def test_settings_that_cannot_work_are_told_before_any_connection(ca: Path, change: Security, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        check(login(ca) | dict(change))
    assert PASSWORD not in str(caught.value)
