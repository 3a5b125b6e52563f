"""Flink's checkpoints on a store that speaks S3: the plugin for it, how processes reach it, and what lies there.

The keys reach Flink's processes by their environment, which their own user alone can read: they stand in no argument
and in no file of Flink's.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from contracts.config.store import Address, Location, StoreSettings
from contracts.storage.objects import Stat, StoreError
from contracts.storage.remote import connect
from driftline.errors import RunError, UsageError

PLUGIN = "org.apache.flink:flink-s3-fs-native:2.3.0"  # of the same version as Flink; shades all that it needs
PLUGINS = "FLINK_PLUGINS_DIR"  # where Flink looks for such; each in a folder of its own
WHOLE = re.compile(r"(?:^|/)chk-(\d+)/_metadata$")  # a checkpoint's last file
METADATA = "_metadata"


def on_store(place: str) -> bool:
    """Whether an address is one of a store and not a folder.

    >>> [on_store(each) for each in ("s3://bucket/checkpoints", "file:///data", "/data")]
    [True, False, False]
    """
    return urlsplit(place).scheme not in ("", "file")


def require_address(place: str) -> None:
    """See that the plugin can reach such a store.

    Raises:
        UsageError: it cannot; one sentence.

    """
    scheme = urlsplit(place).scheme
    if scheme != "s3":
        raise UsageError(f"{place}: a cluster of this machine keeps checkpoints in a folder or on s3://BUCKET/PREFIX.")
    try:
        TypeAdapter(Address).validate_python(place)
    except ValidationError as error:
        raise UsageError(f"{place}: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from error


def configuration(store: StoreSettings | None) -> dict[str, Any]:
    """What Flink's configuration says of a store, keys left out."""
    if store is None:
        return {}
    # A server with an address of its own has buckets as paths and not as names of hosts.
    found = {"s3.endpoint": store.endpoint, "s3.region": store.region, "s3.path-style-access": bool(store.endpoint)}
    return {key: value for key, value in found.items() if value is not None}


def environment(plugins: Path, store: StoreSettings | None) -> dict[str, str]:
    """What Flink's processes are given: where plugins lie, and the keys. Without these, what their environment says."""
    found = {PLUGINS: str(plugins)}
    if store is not None and store.access_key_id and store.secret_access_key:
        found["AWS_ACCESS_KEY_ID"] = store.access_key_id
        found["AWS_SECRET_ACCESS_KEY"] = store.secret_access_key.get_secret_value()
    return found


def require_reached(started_with: Mapping[str, Any], store: StoreSettings, directory: Path) -> None:
    """See that a cluster was started for this store.

    Raises:
        UsageError: it was not, so its processes would ask another one.

    """
    if started_with.get("s3.endpoint") != store.endpoint:
        raise UsageError(
            f"The cluster in {directory} was not started for the store of these settings; stop it and start it by"
            " `driftline flink start -s SETTINGS`."
        )


def newest(place: str, store: StoreSettings) -> str | None:
    """The newest whole checkpoint on a store; None where there is none.

    Raises:
        RunError: the store cannot be asked; one sentence.

    """
    found = newest_of(_under(place, store))
    return None if found is None else f"{place.rstrip('/')}/{found}"


def newest_of(stats: Iterable[Stat]) -> str | None:
    """The key of the newest whole checkpoint among objects. Stores may date by whole seconds: then its number says.

    >>> newest_of([Stat("a/chk-9/_metadata", 1, 5), Stat("a/chk-10/_metadata", 1, 5), Stat("a/chk-11/x", 1, 9)])
    'a/chk-10'
    """
    whole = [(each.written_ms, int(match[1]), each.key) for each in stats if (match := WHOLE.search(each.key))]
    return max(whole)[2].removesuffix(f"/{METADATA}") if whole else None


def is_whole(place: str, store: StoreSettings) -> bool:
    """Whether a checkpoint or savepoint on a store is there and whole.

    Raises:
        RunError: the store cannot be asked; one sentence.

    """
    return any(each.key == METADATA for each in _under(place, store))


def _under(place: str, store: StoreSettings) -> list[Stat]:
    try:
        return connect(Location(place.rstrip("/"), store, Path())).under("")
    except StoreError as error:
        raise RunError(str(error)) from error
