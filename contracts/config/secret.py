"""Secrets: where they may stand, and that they are never shown.

A secret is a `SecretStr`: its text is not in a `repr`, a log, a dump or an error. Each may be given itself, or as the
file that holds it, under the same name with `_file` after it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from contracts.config.regular_file import read_regular

IN_KAFKA = ("sasl_plain_password", "ssl_password")  # of what the client takes under `kafka.security`
FILE = "_file"
LARGEST = 1 << 16  # bytes
_PLACE = re.compile(r"\$\{(\w+)\}")
_IN_URL = re.compile(r"://[^/@?#]*?:([^/@]*)@|[?&;](?:password|passwd|pwd|token|secret)=([^&;]*)", re.IGNORECASE)
_IN_REDIS = re.compile(r",\s*password=([^,]*)", re.IGNORECASE)


def with_secrets(section: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """A section of settings with these secrets as such, those from files too.

    Raises:
        ValueError: a secret is given twice, is no text, or its file cannot be used; its name is in the message.

    """
    found = {name: value for name, value in section.items() if name.removesuffix(FILE) not in names}
    for name in names:
        plain, path = section.get(name), section.get(name + FILE)
        if plain is not None and path is not None:
            raise ValueError(f"{name} and {name}{FILE} both give the secret; leave one out")
        if path is not None:
            found[name] = read(name + FILE, path)
        elif isinstance(plain, SecretStr):
            found[name] = plain
        elif isinstance(plain, bool | float | list | dict):
            raise ValueError(f"{name}: this is not read as text; put it in quotes")
        elif name in section:  # digits alone are a number to YAML; "" and null say that there is none
            found[name] = None if plain in (None, "") else SecretStr(str(plain))
    return found


def read(name: str, path: Any) -> SecretStr:
    """The secret that a file holds, without the end of its last line.

    Raises:
        ValueError: the file cannot be read, is empty, or is too large or no text; what it holds is not said.

    """
    if not isinstance(path, str | Path) or not str(path):
        raise ValueError(f"{name}: the path of a file is wanted")
    try:
        content = read_regular(Path(path), LARGEST + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "this is no path"
        raise ValueError(f"{name}: cannot read {path}: {why}") from None
    if len(content) > LARGEST:
        raise ValueError(f"{name}: {path} is too large for a secret")
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{name}: {path} holds something else than text") from None
    if not text:
        raise ValueError(f"{name}: {path} is empty")
    return SecretStr(text)


def places(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What stands for each `${NAME}` of a text: the variable of that name, or what the file in NAME_FILE holds.

    Raises:
        ValueError: neither is set, both are, or the file cannot be used.

    """
    found = {}
    for name in dict.fromkeys(_PLACE.findall(text)):
        plain, path = environment.get(name), environment.get(f"{name}_FILE")
        if plain and path:
            raise ValueError(f"{name} and {name}_FILE of the environment both give the secret; leave one out")
        if not plain and not path:
            raise ValueError(f"neither {name} nor {name}_FILE is set in the environment")
        found[name] = plain or read(f"{name}_FILE", path).get_secret_value()
    return found


def filled(text: str, environment: Mapping[str, str]) -> str:
    """A text with what stands for each `${NAME}`; errors as of `places`.

    >>> filled("postgres://me:${PW}@db/x", {"PW": "a:b"})
    'postgres://me:a:b@db/x'
    """
    found = places(text, environment)
    return _PLACE.sub(lambda match: found[match[1]], text)


def holds_password(text: str) -> bool:
    """Whether a URL or a connection string of Redis has a password itself, not as `${NAME}`.

    >>> [holds_password(f"postgres://me{rest}") for rest in ("@db/x", ":pw@db/x", ":${PW}@db/x", "@db/x?password=pw")]
    [False, True, False, True]
    >>> holds_password("redis:6379,password=pw"), holds_password("redis:6379,db=1,password=${PW}")
    (True, False)
    """
    values = [value for match in _IN_URL.finditer(text) for value in match.groups() if value]
    values += [match[1] for match in _IN_REDIS.finditer(text)]
    return any(value and not _PLACE.fullmatch(value.strip()) for value in values)


def revealed(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section as a client takes it, with what its secrets say."""
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in section.items()
    }
