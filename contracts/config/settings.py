"""All settings of all workers: one YAML file, validated once, at start.

Bad settings raise `SettingsError` with one sentence that names the setting and what is wrong with it.
"""

import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from contracts.config import environment, secret
from contracts.config.experiment import (
    Arm,
    Experiment,
    ModelName,
    SettingsError,
    Source,
    load_experiment,
    validated,
)
from contracts.config.metrics import MetricsSettings
from contracts.config.model import DiffusionSchedule, LearnAt, ModelSettings, Part, Positive
from contracts.config.objective import ObjectiveSettings
from contracts.config.regimes import RegimesSettings
from contracts.config.retention import RetentionSettings
from contracts.config.section import Section
from contracts.config.store import SECRET as STORE_SECRET
from contracts.config.store import Address, Location, Root, StoreSettings
from contracts.config.tracing import TracingSettings
from contracts.config.trainer import (
    NOT_BY_EXAMPLE,
    CanarySettings,
    GateSettings,
    LearnFrom,
    TrainerSettings,
    VocabularySettings,
)
from contracts.config.yaml_file import read_yaml
from contracts.runtime.clock import HOUR_MS, MINUTE_MS
from contracts.runtime.durable import write_private

__all__ = [
    "Arm",
    "CanarySettings",
    "DiffusionSchedule",
    "Experiment",
    "ExperimentAlone",
    "GateSettings",
    "KafkaSettings",
    "LearnAt",
    "LearnFrom",
    "MetricsSettings",
    "ModelName",
    "ModelSettings",
    "ObjectiveSettings",
    "Part",
    "RegimesSettings",
    "RetentionSettings",
    "ServingSettings",
    "Settings",
    "SettingsError",
    "Source",
    "StoreSettings",
    "StreamSettings",
    "TlsSettings",
    "TracingSettings",
    "TrainerSettings",
    "VocabularySettings",
    "dump",
    "experiment_of",
    "load",
    "load_experimenting",
    "parse",
    "require_experiment",
]


class KafkaSettings(Section):
    """How to reach the broker and what its topics are called."""

    bootstrap_servers: str
    topic_prefix: str = "driftline."
    partitions: Positive = 2
    replication_factor: Positive = 1
    idempotence: bool = True  # off for the embedded broker: its producers never recover from a restart
    topic_config: dict[str, str] = Field(default={})  # of topics that are created here; empty: the broker's defaults
    session_timeout_ms: Annotated[int, Field(ge=1000)] = 10_000  # silent for so long, a worker loses its partitions
    gapless: bool = False  # on for the embedded broker: its fetches may skip a batch that is still being written
    security: dict[str, str | int | bool | SecretStr | None] = Field(
        default={}
    )  # as is to the client: security_protocol, sasl_…, ssl_…; passwords also as `…_file` (contracts/config/secret.py)

    @field_validator("security", mode="before")
    @classmethod
    def _with_secrets(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        checks_name = value.get("ssl_check_hostname")
        if isinstance(checks_name, str) and checks_name.lower() in ("true", "false"):  # from the environment
            value = {**value, "ssl_check_hostname": checks_name.lower() == "true"}
        return secret.with_secrets(value, secret.IN_KAFKA)

    def topic(self, name: str) -> str:
        """The topic's full name.

        >>> KafkaSettings(bootstrap_servers="h:1").topic("feedback")
        'driftline.feedback'
        """
        return self.topic_prefix + name


class StreamSettings(Section):
    """Join, sessions, features."""

    session_gap_ms: Positive = 30 * MINUTE_MS
    history_limit: Positive = 200
    attribution_window_ms: Positive = 6 * HOUR_MS  # feedback later than this after its exposure is too late
    allowed_lateness_ms: Positive = HOUR_MS
    future_tolerance_ms: Positive = 5 * MINUTE_MS
    max_event_bytes: Positive = 256 * 1024
    poll_records: Positive = 2000  # records of a partition that make one batch at most
    cached_users: Positive = 10_000  # histories of a partition kept in memory; the others are read from its state
    cached_requests: Positive = 50_000  # the same of requests


class TlsSettings(Section):
    """Encryption of a replica's port; all are PEM files."""

    certificate: Path
    key: Path
    client_ca: Path | None = None  # clients must show a certificate that this authority has signed (mutual TLS)


class ServingSettings(Section):
    """One replica."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 0  # 0: any free port; the ready file says which
    tls: TlsSettings | None = None  # None: not encrypted
    token_file: Path | None = None  # clients must send its content as a bearer token; None: anybody may ask
    unprotected: bool = False  # listen to other machines with neither TLS nor a token, as inside a private network
    max_k: Positive = 500
    max_batch_requests: Positive = 100  # of one RecallBatch
    max_message_bytes: Positive = 4 * 1024 * 1024
    queue_requests: Positive = 256  # may wait; more are turned away at once
    pending_calls: Positive = 128  # that gRPC may hold before the replica has seen them; it cuts more off at once
    batch_requests: Positive = 32  # answered together at most
    batch_wait_ms: Annotated[float, Field(ge=0)] = 2.0  # for company, under load: together requests cost less each
    latency_budget_ms: Annotated[float, Field(gt=0)] = 25.0  # that answering a batch may take: it is cut to fit
    feature_timeout_ms: Annotated[float, Field(gt=0)] = 50.0  # features later than this: the last known serve
    last_known_users: Positive = 10_000  # rows kept for that
    cached_vectors: Annotated[int, Field(ge=0)] = 10_000  # user vectors kept by each snapshot; 0: none
    served_only: bool = False  # of a request that does not say: what is answered is not shown as it is (docs/events.md)
    exposure_buffer: Positive = 10_000  # exposures that wait for Kafka; what comes then is lost, and counted
    pointer_poll_ms: Positive = 100
    drain_s: Annotated[float, Field(ge=0)] = 5.0

    @model_validator(mode="after")
    def _is_meant_to_be_open(self) -> "ServingSettings":
        if self.tls is None and self.token_file is None and not self.unprotected and not is_loopback(self.host):
            raise ValueError(
                f"host is {self.host}, which other machines reach, and there is neither tls nor a token_file; set one, "
                "or unprotected: true if whoever reaches the port may ask"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "[::1]", "::1", "127.8.0.1")]
    [True, True, True, True, True]
    >>> [is_loopback(host) for host in ("0.0.0.0", "", "::", "10.0.0.7", "recall.example.org", "localhost.example.org")]
    [False, False, False, False, False, False]
    """
    name = host.strip("[]").lower().rstrip(".")
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


class Settings(Section):
    """Everything. Paths are absolute, or relative to the working directory."""

    kafka: KafkaSettings
    feature_repo: Path  # a directory that `feast apply` works in
    snapshots: Address  # a directory, or s3://BUCKET/PREFIX and the like
    store: StoreSettings = StoreSettings()  # how a store is reached that `snapshots` names
    state: Path  # where workers keep theirs
    seed: Annotated[int, Field(ge=0)] = 0
    stop_within_s: Annotated[float, Field(gt=0)] = 60.0  # after SIGTERM a worker that still runs says at what, and ends
    stream: StreamSettings = StreamSettings()
    trainer: TrainerSettings = TrainerSettings()
    serving: ServingSettings = ServingSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings | None = None  # None: no request is traced
    retention: RetentionSettings = RetentionSettings()
    # Without one, everybody is answered by the first of `trainer.models`.
    experiment: Experiment = Field(default_factory=lambda valid: Experiment.none(valid["trainer"].models[0]))

    @property
    def snapshot_root(self) -> Root:
        """Where snapshots lie: the directory, or the store with all that is needed to reach it."""
        if isinstance(self.snapshots, Path):
            return self.snapshots
        return Location(self.snapshots, self.store, self.store.cache or self.state / "cache")

    @property
    def snapshot_directory(self) -> Path | None:
        """The directory of snapshots, where they lie in one."""
        return self.snapshots if isinstance(self.snapshots, Path) else None

    @model_validator(mode="after")
    def _keeps_users_long_enough(self) -> "Settings":
        users_ms, least_ms = self.retention.users_ms, self.stream.session_gap_ms + self.stream.attribution_window_ms
        if users_ms is not None and users_ms < least_ms:
            raise ValueError(
                f"retention.users_ms is {users_ms}, and feedback on what a user was shown may come for {least_ms} ms "
                "(stream.session_gap_ms + stream.attribution_window_ms)"
            )
        return self

    @model_validator(mode="after")
    def _can_weigh(self) -> "Settings":
        if self.trainer.learn_from == "weighted":
            served = {model for arm in self.experiment.arms.values() for model in arm.models}
            for model in self.trainer.models:
                if model not in served:
                    raise ValueError(
                        f"trainer.learn_from: weighted asks how likely an example is in the arms that serve {model}, "
                        "and none does"
                    )
        by = {"learn_from: weighted": self.trainer.learn_from == "weighted", "objective": self.trainer.objective.weighs}
        for model in self.trainer.models:
            for setting, weighs in by.items():
                if weighs and model in NOT_BY_EXAMPLE:
                    raise ValueError(
                        f"trainer.{setting} does not go with {model}, whose loss sets the examples of a batch against "
                        "each other, so that none has a loss of its own to weigh"
                    )
        return self


class ExperimentAlone(SettingsError):
    """The file of an experiment was given where a deployment's settings are wanted."""


def load(path: Path, variables: Mapping[str, str] | None = None) -> Settings:
    """Read settings from a YAML file, with those of the environment over them (`contracts.config.environment`).

    `experiment` may be the path of the experiment's own file.

    Args:
        path: of the file.
        variables: the environment; None: that of this process.

    Raises:
        ExperimentAlone: the file is that of an experiment.
        SettingsError: a file is absent, is not YAML, or a setting is wrong, also one of the environment.

    """
    data = read_yaml(path)
    if isinstance(data, dict) and "arms" in data and not {"kafka", "experiment"} & data.keys():
        raise ExperimentAlone(f"{path} is the file of an experiment; the settings of a deployment are wanted here.")
    variables = os.environ if variables is None else variables
    nested = environment.values(Settings, variables)
    if isinstance(data, dict) and isinstance(data.get("experiment"), str):
        file = Path(data["experiment"])
        changed = "experiment" in nested
        data = {**data, "experiment": read_yaml(file, "experiment") if changed else load_experiment(file)}
    merged = environment.over(data, nested)
    if isinstance(merged, dict) and nested.get("experiment", "") is None:
        del merged["experiment"]  # none is said by leaving it out
    try:
        return parse(merged, str(path))
    except SettingsError as error:
        by = _blamed(error, environment.given(Settings, variables))
        if not by:
            raise
        raise SettingsError(f"With {by} of the environment: {error}") from error.__cause__


def _blamed(error: SettingsError, given: Mapping[environment.Path, str]) -> str:
    """The variables of the environment that may be what is wrong, for they are at its place or within it."""
    if not isinstance(error.__cause__, ValidationError):
        return ""
    place = tuple(map(str, error.__cause__.errors()[0]["loc"]))
    return ", ".join(name for path, name in given.items() if all(a == b for a, b in zip(place, path, strict=False)))


def load_experimenting(path: Path) -> Settings:
    """`load`, where nothing can be done without an experiment.

    Raises:
        SettingsError: as of `load`, and where the settings have no experiment.

    """
    settings = load(path)
    require_experiment(settings, path)
    return settings


def require_experiment(settings: Settings, path: Path) -> None:
    """Nothing where settings that were read from `path` have an experiment.

    Raises:
        SettingsError: they have none.

    """
    if not settings.experiment.exists:
        raise SettingsError(f"{path}: experiment: there is none; it serves one model to everybody.")


def experiment_of(path: Path) -> Experiment:
    """The experiment of a deployment's settings, or of a file that is an experiment's alone.

    Raises:
        SettingsError: a file is absent, is not YAML, or a setting is wrong.

    """
    data = read_yaml(path)
    deployment = isinstance(data, dict) and bool({"kafka", "experiment"} & data.keys())
    return load_experimenting(path).experiment if deployment else load_experiment(path)


def parse(data: Any, where: str = "settings") -> Settings:
    """Validate settings that were read from `where`.

    Raises:
        SettingsError: a setting is wrong; the first one is named.

    """
    return validated(Settings, data, where)


def dump(settings: Settings, path: Path) -> None:
    """Write settings so that `load` gives them back; the experiment stands inline.

    Whoever runs this alone can read the file, and each secret stands in a file of its own beside it.
    """
    data = settings.model_dump(mode="json", exclude=set() if settings.experiment.exists else {"experiment"})
    for name, value in settings.kafka.security.items():
        if isinstance(value, SecretStr):
            file = path.with_name(f"{path.stem}.{name}")
            write_private(file, value.get_secret_value().encode())
            del data["kafka"]["security"][name]
            data["kafka"]["security"][name + secret.FILE] = str(file.absolute())
    if settings.store.secret_access_key is not None:
        file = path.with_name(f"{path.stem}.{STORE_SECRET}")
        write_private(file, settings.store.secret_access_key.get_secret_value().encode())
        del data["store"][STORE_SECRET]
        data["store"][STORE_SECRET + secret.FILE] = str(file.absolute())
    write_private(path, yaml.safe_dump(data, sort_keys=False).encode())
