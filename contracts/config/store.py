"""Where snapshots lie: a directory, or a prefix of an object store, and how such a store is reached.

Credentials come from the environment as the provider's own tools read them (AWS_…, GOOGLE_…, AZURE_…), or from
`store`; a location shows neither in its text.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from contracts.config import secret
from contracts.config.section import Name, Section

SCHEMES = ("s3", "gs", "az", "memory")
SECRET = "secret_access_key"  # noqa: S105  the setting's name


class StoreSettings(Section):
    """How an object store is reached, and where a replica keeps what it has fetched."""

    endpoint: Name | None = None  # of a server that speaks S3, such as http://minio:9000; None: the provider's
    region: Name | None = None
    access_key_id: Name | None = None  # with the next one; None: as the environment says
    secret_access_key: SecretStr | None = None  # also as `secret_access_key_file`
    cache: Path | None = None  # None: `cache` in `state`
    timeout_s: Annotated[float, Field(gt=0)] = 10.0  # of one request
    retry_for_s: Annotated[float, Field(gt=0)] = 30.0  # a request that found the store away is sent again for so long

    @model_validator(mode="before")
    @classmethod
    def _with_secrets(cls, data: Any) -> Any:
        return secret.with_secrets(data, (SECRET,)) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _whole(self) -> "StoreSettings":
        if self.endpoint is not None and not _is_address(self.endpoint):
            raise ValueError("endpoint is http://HOST[:PORT] or https://HOST[:PORT], without a name or a password")
        for name in ("region", "access_key_id"):  # they go into a header of each request
            value = getattr(self, name)
            if value is not None and not (value.isascii() and value.isprintable()):
                raise ValueError(f"{name} has a character in it that none has, such as a line break")
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together; give both, or leave both out")
        return self


def _is_address(endpoint: str) -> bool:
    """Whether it is an address that the client takes.

    >>> [_is_address(each) for each in ("http://minio:9000", "https://s3.example.org/", "minio:9000", "http://a b")]
    [True, True, False, False]
    """
    try:
        parts = urlsplit(endpoint)
        parts.port  # noqa: B018  (raises where it is no number)
    except ValueError:
        return False
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain and not set(endpoint) & set(" \t\r\n<>")


@dataclass(frozen=True)
class Location:
    """A prefix of an object store; its text is the URL."""

    url: str
    store: StoreSettings
    cache: Path

    def __str__(self) -> str:
        return self.url


Root: TypeAlias = Path | Location


def _plain(value: Any) -> Any:
    """A `file://` URL as the path that it says."""
    if isinstance(value, str) and value.startswith("file://"):
        parts = urlsplit(value)
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"{value} names another machine; a path after file:// begins with a slash")
        if not parts.path:
            raise ValueError(f"{value} names no directory; file:///PATH is wanted")
        return unquote(parts.path)
    return value


def _known(value: Path | str) -> Path | str:
    text = str(value)
    scheme, found, rest = text.partition(":/")
    if not found or not scheme.isalnum():
        return Path(text)
    parts = urlsplit(text)
    if scheme not in SCHEMES:
        raise ValueError(f"{scheme}:// is no store that is known; known are s3://, gs://, az://, file:// and a path")
    if not rest.startswith("/") or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"{scheme}://BUCKET/PREFIX is wanted; credentials and options are given in `store`")
    if not parts.netloc and scheme != "memory":
        raise ValueError(f"{scheme}:// names no bucket; {scheme}://BUCKET/PREFIX is wanted")
    # The client would take them away in silence, so that two settings name one place.
    if ":" in parts.netloc or not text.isprintable() or {".", ".."} & {*unquote(parts.path).split("/")}:
        raise ValueError(f"{scheme}://BUCKET/PREFIX is wanted, without a port, control characters, `.` and `..` in it")
    return text.rstrip("/")


Address = Annotated[str | Path, BeforeValidator(_plain), AfterValidator(_known)]
