"""Where a repository keeps its online rows, as Feast would find out, but without Feast.

It is what a reader of the rows must know. Whatever else a feature_store.yaml may ask of Feast is `NotKnown` here.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from contracts.config import secret
from contracts.config.regular_file import read_regular
from contracts.config.settings import SettingsError
from contracts.config.yaml_file import LARGEST_BYTES, parse_yaml
from contracts.wire.feast_value_pb2 import FeastFeatureViewSpec, FeastRegistry
from feature_repo.row import CONFIG, NUMBERS, SEQUENCES, VIEW

KEY_VERSION = 3  # of the entity keys' serialization
INT64, INT64_LIST = 4, 14  # feast.types.ValueType
FEATURES = dict.fromkeys(SEQUENCES, INT64_LIST) | dict.fromkeys(NUMBERS, INT64)
ENTITY = {"user_id": INT64}
# Where feature_store.yaml leaves a setting out.
SQLITE_PATH = "data/online.db"
REDIS_ADDRESS = "localhost:6379"
_PROVIDED: set[str] = set()  # names that `provide` has set in this process


class NotKnown(SettingsError):
    """A store, or a way of using it, that only Feast's own client knows."""


class OnlineStore(NamedTuple):
    """An online store. One of the latter two is set."""

    project: str
    database: Path | None = None  # of SQLite
    redis: str | None = None  # Feast's connection string: HOST:PORT,setting=value,…


def online_store(repo: Path) -> OnlineStore:
    """The online store of an applied repository.

    A registry that is no local file is not asked whether the repository was applied.

    Raises:
        SettingsError: there is no such repository, it was not applied, or it is of another version.
        NotKnown: only Feast's own client can read its rows.

    """
    provide(repo)
    config = _read(config_file(repo), repo)
    registry = config.get("registry")
    registry = registry if isinstance(registry, dict) else {"path": registry}
    store = _store(config, repo)
    if registry.get("enable_online_feature_view_versioning"):
        raise NotKnown(f"The Feast repository in {repo} keeps versions of its feature views.")
    path = str(registry.get("path") or "")
    if registry.get("registry_type", "file") == "file" and "://" not in path:
        _check(repo, repo / path, store.project)
    return store


def config_file(repo: Path) -> Path:
    """The feature_store.yaml of a repository, as Feast finds it."""
    return Path(os.environ.get("FEAST_FS_YAML_FILE_PATH", repo / CONFIG))


def provide(repo: Path) -> None:
    """Let `${NAME}` in a feature_store.yaml stand for what the file in NAME_FILE holds, too: Feast knows NAME alone.

    NAME is set in the environment of this process, and so of its children.

    Raises:
        SettingsError: neither is set, both are, or the file cannot be used; or there is no feature_store.yaml.

    """
    file = config_file(repo)
    try:
        text = _content(file)
    except OSError as error:
        raise _not_applied(repo) from error
    except ValueError as error:
        raise SettingsError(f"{file} is not valid YAML.") from error
    environment = {name: value for name, value in os.environ.items() if name not in _PROVIDED}
    try:
        found = secret.places(text, environment)
    except ValueError as error:
        raise SettingsError(f"{file}: {error}.") from error
    for name, value in found.items():
        if name not in environment:
            os.environ[name] = value
            _PROVIDED.add(name)


def _content(file: Path) -> str:
    return read_regular(file, LARGEST_BYTES + 1).decode()  # of what is too large enough to be refused as that


def _read(file: Path, repo: Path) -> dict[str, Any]:
    try:
        text = os.path.expandvars(_content(file))
    except OSError as error:
        raise _not_applied(repo) from error
    except ValueError as error:
        raise SettingsError(f"{file} is not valid YAML: it is not UTF-8.") from error
    config = parse_yaml(text, file)
    if not isinstance(config, dict) or not isinstance(config.get("project"), str):
        raise SettingsError(f"{file} names no project.")
    return config


def _store(config: dict[str, Any], repo: Path) -> OnlineStore:
    project, online = config["project"], config.get("online_store", {})
    online = online if isinstance(online, dict) else {"type": online}
    kind = online.get("type", "sqlite")
    plain = online.get("redis_type", "redis") == "redis" and online.get("client", "redis") == "redis"
    if config.get("entity_key_serialization_version", KEY_VERSION) == KEY_VERSION:
        if kind == "sqlite":
            return OnlineStore(project, database=repo / str(online.get("path", SQLITE_PATH)))
        if kind == "redis" and plain:
            return OnlineStore(project, redis=str(online.get("connection_string", REDIS_ADDRESS)))
    raise NotKnown(
        f"The online store of the Feast repository in {repo} is of a kind that only Feast can read ({kind})."
    )


def _check(repo: Path, registry: Path, project: str) -> None:
    try:
        views = FeastRegistry.FromString(registry.read_bytes()).feature_views
    except OSError as error:
        raise _not_applied(repo) from error
    except DecodeError as error:
        raise SettingsError(f"{registry} is no registry of Feast's.") from error
    specs = [view.spec for view in views if (view.spec.project, view.spec.name) == (project, VIEW)]
    if not specs:
        raise _not_applied(repo)
    if not all(map(_as_known, specs)):
        raise SettingsError(f"The Feast repository in {repo} is of another version; `driftline init` renews it.")


def _as_known(spec: FeastFeatureViewSpec) -> bool:
    features, entity = (
        {field.name: field.value_type for field in fields} for fields in (spec.features, spec.entity_columns)
    )
    return (features, entity) == (FEATURES, ENTITY)


def _not_applied(repo: Path) -> SettingsError:
    return SettingsError(f"There is no applied Feast repository in {repo}; `driftline init` makes one.")
