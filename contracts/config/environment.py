"""Settings from the environment: `DRIFTLINE_SERVING__PORT=7000` stands over `serving: {port: …}` of the file.

Names are those of the settings in capitals, sections divided by two underscores; of a mapping whose keys are free, such
as `kafka.security`, the keys are in small letters. A number or a word is written as it is, a list or a section as JSON;
such a section adds to the file's. `null` is nothing: it takes away what may be absent, a section too. A password is
taken as it stands, whatever it reads like. A variable that is empty counts as not set. Only
`contracts.config.settings.load` asks for them.
"""

import json
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource
from pydantic_settings import SettingsError as UnreadableValue

from contracts.config import secret
from contracts.config.yaml_file import SettingsError

PREFIX, SECTIONS, NOTHING = "DRIFTLINE_", "__", "null"
DEEPEST = 100  # levels of a JSON value
SECRETS = {("kafka", "security", name) for name in secret.IN_KAFKA} | {("store", "secret_access_key")}
# Read by other parts.
NO_SETTINGS = frozenset(
    PREFIX + name
    for name in (
        "DATA",
        "FLINK",
        "FLINK_HOME",
        "KAFKA_HOME",
        "MAVEN_REPOSITORY",
        "PROMETHEUS_HOME",
        "REDIS_HOME",
        "S3_HOME",
        "WEBHOOK",
        "WITHOUT_SERVERS",
    )
)
AS_A_FILE_SPELLS_THEM = {"experiment": {"start", "end", "day_offset"}}  # beside the fields of the section

Path: TypeAlias = tuple[str, ...]


def given(model: type[BaseModel], environment: Mapping[str, str]) -> dict[Path, str]:
    """The settings that the environment gives, by their place in `model`, and the names of the variables.

    Raises:
        SettingsError: a variable with the prefix is no setting.

    """
    found: dict[Path, str] = {}
    for variable, value in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in NO_SETTINGS or not value:
            continue
        path = tuple(variable.removeprefix(PREFIX).lower().split(SECTIONS))
        if not _exists(model, path):
            raise SettingsError(f"{variable} in the environment: there is no such setting.")
        if path in found:
            raise SettingsError(f"{found[path]} and {variable} in the environment are the same setting.")
        found[path] = variable
    return found


def values(model: type[BaseModel], environment: Mapping[str, str]) -> dict[str, Any]:
    """What the environment gives, as a file would; see the top.

    Raises:
        SettingsError: a value cannot be read.

    """
    variables = given(model, environment)
    plain = {path: name for path, name in variables.items() if path not in SECRETS}
    for name in plain.values():
        _require_flat(name, environment[name])
    try:
        nested: dict[str, Any] = _Source(model, {name: environment[name] for name in plain.values()})()
    except UnreadableValue as error:
        field = str(error).partition('"')[2].partition('"')[0]  # the error that it comes of quotes the value
        raise SettingsError(f"{_first(variables, field)} in the environment is not written as JSON.") from None
    for path, name in plain.items():
        if len(path) == 1 and environment[name] == NOTHING:  # Pydantic would take it as not set
            if path[0] in nested:
                raise SettingsError(
                    f"{name} in the environment takes away a section of which other variables set a part."
                )
            nested[path[0]] = None
    for path in SECRETS & variables.keys():
        _put(nested, path, environment[variables[path]])
    return nested


def _put(nested: dict[str, Any], path: Path, value: str) -> None:
    """Put a value at its place, unless something else than a section stands above it, which is refused later."""
    *sections, last = path
    section: Any = nested
    for name in sections:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            return
    section[last] = value


def _require_flat(variable: str, text: str) -> None:
    """See that a value that is JSON does not stand too deep within itself."""
    try:
        level = [json.loads(text)]
        for _ in range(DEEPEST):
            level = [
                inner
                for value in level
                if isinstance(value, dict | list)
                for inner in (value.values() if isinstance(value, dict) else value)
            ]
    except ValueError:
        return
    except RecursionError:
        pass
    else:
        if not level:
            return
    raise SettingsError(f"{variable} in the environment: its values stand too deep within each other.")


def over(data: Any, nested: Mapping[str, Any]) -> Any:
    """Settings of a file with others over them, section by section.

    >>> over({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}, "d": 4})
    {'a': {'b': 1, 'c': 3}, 'd': 4}
    """
    if not isinstance(data, dict):
        return dict(nested) if nested and data is None else data
    merged = dict(data)
    for name, value in nested.items():
        merged[name] = over(data.get(name), value) if isinstance(value, dict) else value
    return merged


class _Source(EnvSettingsSource):
    """Pydantic's reading of an environment, of one that is given."""

    def __init__(self, model: type[BaseModel], environment: Mapping[str, str]) -> None:
        self._environment = environment
        # It asks the class for fields and configuration, which any model has.
        super().__init__(
            _as_settings(model),
            case_sensitive=False,
            env_prefix=PREFIX,
            env_nested_delimiter=SECTIONS,
            env_ignore_empty=True,
            env_parse_none_str=NOTHING,
        )

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): None if value == NOTHING else value for name, value in self._environment.items()}


def _as_settings(model: type[BaseModel]) -> type[BaseSettings]:
    return model  # type: ignore[return-value]


def _first(variables: Mapping[Path, str], field: str) -> str:
    return next((variable for path, variable in variables.items() if path[0] == field), field)


def _exists(model: type[BaseModel], path: Path) -> bool:
    kinds: list[Any] = [model]
    for depth, name in enumerate(path):
        if any(name in AS_A_FILE_SPELLS_THEM.get(".".join(path[:depth]), ()) for _ in kinds) and depth + 1 == len(path):
            return True
        kinds = [inner for kind in kinds for inner in _within(kind, name)]
    return bool(kinds)


def _within(kind: Any, name: str) -> Iterator[Any]:
    """What may stand under a name in a value of some kind."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if name in kind.model_fields:
            yield from _members(kind.model_fields[name].annotation)
    elif get_origin(kind) is dict and name:
        yield from _members(get_args(kind)[1])


def _members(kind: Any) -> Iterator[Any]:
    if get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            yield from _members(member)
    elif hasattr(kind, "__metadata__"):  # Annotated
        yield from _members(kind.__origin__)
    else:
        yield kind
