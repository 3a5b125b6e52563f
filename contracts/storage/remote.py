"""Objects on S3, Google Cloud Storage, Azure or a server that speaks S3, through obstore."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from contracts.config.store import Location
from contracts.config.yaml_file import SettingsError
from contracts.storage.objects import AwayError, Blob, ChangedError, MissingError, Objects, Stat, StoreError

# What a store's refusal has in its text -> what is wrong, and what to do.
_REFUSALS = {
    "NoSuchBucket": "there is no such bucket",
    "InvalidBucketName": "the store takes no such name for a bucket",
    "ContainerNotFound": "there is no such container",
    "RequestTimeTooSkewed": "this machine's clock differs from the store's by too much; set it by NTP",
    "InvalidAccessKeyId": "the store does not know these credentials",
    "SignatureDoesNotMatch": "the store refuses the secret key",
    "ExpiredToken": "the credentials have expired",
    "AccessDenied": "these credentials have no permission for it",
    "NotImplemented": "the store cannot write conditionally, which is needed so that no publication is lost",
}


class Remote:
    """`Objects` of one store."""

    def __init__(self, store: Any, name: str) -> None:
        """`store`: one of obstore's; `name`: how it is called in errors."""
        import obstore

        self._obstore = obstore
        self._store = store
        self._name = name

    def get(self, key: str, known: str | None = None) -> Blob | None:
        from obstore.exceptions import NotModifiedError

        try:
            with self._errors(key):
                found = self._obstore.get(self._store, key, options={"if_none_match": known} if known else None)
                return Blob(bytes(found.bytes()), str(found.meta["e_tag"]))
        except NotModifiedError:
            return None

    def create(self, key: str, content: bytes) -> str:
        with self._errors(key):
            return str(self._obstore.put(self._store, key, content, mode="create", use_multipart=False)["e_tag"])

    def swap(self, key: str, content: bytes, etag: str) -> str:
        with self._errors(key):
            done = self._obstore.put(self._store, key, content, mode={"e_tag": etag}, use_multipart=False)
            return str(done["e_tag"])

    def put(self, key: str, content: bytes) -> None:
        with self._errors(key):
            self._obstore.put(self._store, key, content, use_multipart=False)

    def under(self, prefix: str) -> list[Stat]:
        # A listing asks for whole parts of keys; `prefix` may end within one.
        folder = prefix.rpartition("/")[0]
        with self._errors(prefix):
            found = [each for batch in self._obstore.list(self._store, folder or None) for each in batch]
        stats = (Stat(e["path"], e["size"], int(e["last_modified"].timestamp() * 1000)) for e in found)
        return sorted(each for each in stats if each.key.startswith(prefix))

    def folders(self) -> list[str]:
        with self._errors(""):
            return sorted(self._obstore.list_with_delimiter(self._store)["common_prefixes"])

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with contextlib.suppress(MissingError), self._errors(key):
                self._obstore.delete(self._store, key)

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        from obstore import exceptions

        where = f"{self._name}/{key}".rstrip("/")
        try:
            yield
        except exceptions.NotModifiedError:
            raise
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise ChangedError(f"{where} was written by another.") from error
        except (exceptions.BaseError, OSError, ValueError) as error:  # what it quotes is not passed on
            missing = isinstance(error, (exceptions.NotFoundError, FileNotFoundError))
            raise _told(str(error), where, self._name, missing=missing) from None
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # of the client's Rust, which exports no class for it
                raise
            raise StoreError(
                f"{self._name}: the client cannot send a request; see whether the credentials and the region, also "
                "those of the environment, have a line break or another such character in them."
            ) from None


def _told(text: str, where: str, name: str, *, missing: bool) -> StoreError:
    """What an error of obstore means, as one sentence."""
    for code, meaning in _REFUSALS.items():
        if re.search(rf"\b{code}\b", text):
            return StoreError(f"{name}: {meaning} ({code}).")
    if missing:
        return MissingError(f"{where} is not there.")
    if re.search(r"\b(401|403)\b|Unauthorized|Forbidden|PermissionDenied|Unauthenticated", text):
        return StoreError(f"{name}: these credentials have no permission for it (403).")
    return AwayError(f"{name} does not answer as it should: {_reason(text)}.")


def _reason(text: str) -> str:
    status = re.search(r"status code: (\d{3}[^\n:,]*)|status: (\d{3}[^\n:,]*)|(\d{3} [A-Z][A-Za-z ]+)", text)
    if status:
        return str(next(filter(None, status.groups()))).strip()
    for sign, meaning in (("refused", "the connection was refused"), ("dns", "its name is not known"),
                          ("timed out", "it took too long"), ("operation timed out", "it took too long")):  # fmt: skip
        if sign in text.lower():
            return meaning
    return "the request failed"


@lru_cache(maxsize=32)
def connect(location: Location) -> Objects:
    """The objects of a location; one client for each, as long as the process lives.

    Raises:
        SettingsError: the client is not installed, or does not take these settings.

    """
    try:
        import obstore.store as stores
    except ImportError as error:
        raise SettingsError(
            f"snapshots: {location} needs obstore; pip install 'driftline[trainer]' or 'driftline[serving]' brings it."
        ) from error
    settings, parts = location.store, urlsplit(location.url)
    if parts.scheme == "memory":
        return Remote(stores.MemoryStore(), location.url)
    given: dict[str, Any] = {}
    if parts.scheme == "s3":
        secret = settings.secret_access_key
        given = {
            "endpoint": settings.endpoint,
            "region": settings.region,
            "access_key_id": settings.access_key_id,
            "secret_access_key": secret.get_secret_value() if secret else None,
        }
    elif settings.endpoint:
        given = {"endpoint": settings.endpoint} if parts.scheme == "az" else {"base_url": settings.endpoint}
    try:
        store = stores.from_url(
            location.url,
            client_options={
                "timeout": timedelta(seconds=settings.timeout_s),
                "connect_timeout": timedelta(seconds=min(settings.timeout_s, 5.0)),
                "allow_http": bool(settings.endpoint and settings.endpoint.startswith("http://")),
            },
            retry_config={"retry_timeout": timedelta(seconds=settings.retry_for_s), "max_retries": 10},
            **{name: value for name, value in given.items() if value is not None},
        )
    except Exception as error:  # it quotes what it was given
        raise SettingsError(f"snapshots: {location}: the client does not take these settings.") from error
    return Remote(store, location.url)
