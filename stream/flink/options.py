"""What the settings say, as a job on Flink needs it. Pure."""

from collections.abc import Mapping
from typing import Any

from contracts.config.secret import revealed
from contracts.config.settings import KafkaSettings, Settings, SettingsError

_JAAS = {
    "PLAIN": "org.apache.flink.kafka.shaded.org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.flink.kafka.shaded.org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.flink.kafka.shaded.org.apache.kafka.common.security.scram.ScramLoginModule",
}
_USED = {
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
    "ssl_cafile",
    "ssl_check_hostname",
}


def require_usable(settings: Settings) -> None:
    """See that a job can work with these settings.

    Raises:
        SettingsError: it cannot; one sentence.

    """
    if settings.kafka.gapless or not settings.kafka.idempotence:
        raise SettingsError(
            "The stream on Flink writes in transactions, which the embedded broker does not have: it needs Apache Kafka"
            " (kafka.gapless: false, kafka.idempotence: true)."
        )
    client_properties(settings.kafka)


def client_properties(kafka: KafkaSettings) -> dict[str, str]:
    """Properties of Kafka's Java client that say what `kafka.security` says.

    Raises:
        SettingsError: it says something that is not carried over.

    """
    security = revealed(kafka.security)
    for name in security:
        if name not in _USED and security[name] is not None:
            raise SettingsError(f"kafka.security.{name}: a job on Flink cannot use it; give it to the job by --conf.")
    found = {"security.protocol": str(security.get("security_protocol") or "PLAINTEXT")}
    mechanism = security.get("sasl_mechanism")
    if mechanism:
        if mechanism not in _JAAS:
            raise SettingsError(f"kafka.security.sasl_mechanism: a job on Flink cannot use {mechanism}.")
        found["sasl.mechanism"] = str(mechanism)
        found["sasl.jaas.config"] = _login(str(mechanism), security)
    if security.get("ssl_cafile"):
        found |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(security["ssl_cafile"])}
    if security.get("ssl_check_hostname") is False:
        found["ssl.endpoint.identification.algorithm"] = ""
    return found


def plain(settings: Settings) -> dict[str, Any]:
    """The settings as `contracts.config.settings.parse` reads them; secrets stand in them, as in the job itself."""
    data = settings.model_dump(mode="json", exclude=set() if settings.experiment.exists else {"experiment"})
    data["kafka"]["security"] = dict(revealed(settings.kafka.security))
    return data


def _login(mechanism: str, security: Mapping[str, Any]) -> str:
    user, password = (_quoted(str(security.get(f"sasl_plain_{part}") or "")) for part in ("username", "password"))
    return f"{_JAAS[mechanism]} required username={user} password={password};"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
