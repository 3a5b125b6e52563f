"""`driftline recall` and `driftline status`: ask serving replicas, as a production service would."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftline import tables
from driftline.errors import RunError, UsageError

if TYPE_CHECKING:
    from contracts.wire.recall_pb2 import StatusReply
    from serving.client import RecallClient, Status

TokenFile = Annotated[
    Path | None, typer.Option(help="File with the bearer token, where replicas have `serving.token_file`.")
]
Tls = Annotated[bool, typer.Option("--tls", help="Encrypt. [implied by --ca and --cert]")]
Ca = Annotated[
    Path | None,
    typer.Option(help="PEM file with the authority of the replicas' certificates. Without it: those gRPC ships with."),
]
Cert = Annotated[
    Path | None, typer.Option(help="PEM file with a certificate to show, where replicas have `serving.tls.client_ca`.")
]
Key = Annotated[Path | None, typer.Option(help="PEM file with the key of --cert.")]
ServerName = Annotated[
    str | None, typer.Option(help="The name in the replicas' certificates, where it is not the host in HOST:PORT.")
]
Deadline = Annotated[float, typer.Option(min=0.001, help="Seconds to wait for an answer.")]
COLUMNS = {
    "replica": False,
    "state": False,
    "waiting": True,
    "model": False,
    "serves": False,
    "live": False,
    "on trial": False,
    "items": True,
    "index": False,
    "problem": False,
}


def recall(
    target: Annotated[list[str], typer.Option(help="HOST:PORT of a replica, or of a DNS name of many; repeatable.")],
    user_id: Annotated[
        int | None, typer.Argument(help="Whom to recommend to: a number; without it --user-key.", show_default=False)
    ] = None,
    user_key: Annotated[str, typer.Option(help="Whom to recommend to, by text id.")] = "",
    k: Annotated[int, typer.Option(help="How many items.")] = 10,
    deadline: Deadline = 10.0,
    token_file: TokenFile = None,
    tls: Tls = False,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    server_name: ServerName = None,
) -> None:
    """Ask the replicas for items and print the reply as JSON. (This logs an exposure, as every Recall does.)

    With several targets one replica answers, and another one takes over where it cannot.
    """
    if user_id is None and not user_key:
        raise UsageError("Say whom to recommend to: USER_ID, or --user-key TEXT.")
    from serving.client import RecallError

    with _client(target, deadline, token_file, (tls, ca, cert, key, server_name)) as client:
        try:
            answer = client.recall(user_id or 0, k, user_key=user_key)
        except RecallError as error:
            raise _failure(error.code.name, str(error)) from error
    about = asdict(answer)
    keys = about.pop("item_keys")
    items = [
        item._asdict() | ({"item_key": text} if text else {}) for item, text in zip(answer.items, keys, strict=True)
    ]
    typer.echo(json.dumps(about | {"items": items}, indent=2))


def status(
    replicas: Annotated[list[str], typer.Argument(metavar="HOST:PORT", help="The replicas.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a replica instead of a table.")] = False,
    deadline: Deadline = 2.0,
    token_file: TokenFile = None,
    tls: Tls = False,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    server_name: ServerName = None,
) -> None:
    """Show what replicas serve, and what they could not load and why.

    `serves` is the snapshot that answers, `live` the one that the trainer's pointer names, `on trial` the one that so
    large a share of the requests is answered from to try it. Exit code 1 where a replica does not answer.
    """
    from serving.client import RecallError

    with _client(replicas, deadline, token_file, (tls, ca, cert, key, server_name)) as client:
        statuses = client.status(deadline_s=deadline)
    if as_json:
        for replica, answer in statuses.items():
            typer.echo(json.dumps({"replica": replica} | _as_json(answer)))
    else:
        shown = tables.table(COLUMNS, wraps=["problem"])
        for row in rows(statuses):
            shown.add_row(*row)
        tables.show(shown)
        for line in experiments(statuses):
            typer.echo(line)
    if any(isinstance(answer, RecallError) for answer in statuses.values()):
        raise typer.Exit(1)


def rows(statuses: "Mapping[str, Status]") -> Iterator[tuple[str, ...]]:
    """The table of what replicas said: a line for each model of each replica, under COLUMNS."""
    from serving.client import RecallError

    for replica, answer in statuses.items():
        if isinstance(answer, RecallError):
            yield replica, "no answer", *[""] * 7, str(answer)
            continue
        about = replica, _state(answer), f"{answer.waiting:,}"
        if not answer.models:
            yield *about, *[""] * 7
        for model in answer.models:
            items = f"{model.items:,}" if model.snapshot_version else ""
            serves, live = model.snapshot_version or "-", model.live_version or "-"
            tried = f"{model.canary_version} for {model.canary_share:.0%}" if model.canary_version else ""
            yield *about, model.model, serves, live, tried, items, model.index, model.error


def experiments(statuses: "Mapping[str, Status]") -> Iterator[str]:
    """How replicas say that the experiment stands: one line where they agree, else one each."""
    from serving.client import RecallError

    told: dict[str, list[str]] = {}
    for replica, answer in statuses.items():
        if not isinstance(answer, RecallError) and answer.HasField("experiment"):
            at = answer.experiment
            share = f", {at.share:.0%} of its slots' users" if at.state == "running" else ""
            line = f"Experiment {at.experiment} ({at.experiment_hash}): {at.state}{share}."
            told.setdefault(f"{line} {at.error}".strip(), []).append(replica)
    for line, replicas in told.items():
        yield line if len(told) == 1 else f"{', '.join(replicas)}: {line}"


def _state(reply: "StatusReply") -> str:
    if reply.draining:
        return "draining"
    return "serving" if any(model.snapshot_version for model in reply.models) else "no snapshot"


def _as_json(answer: "Status") -> dict[str, Any]:
    from serving.client import RecallError

    if isinstance(answer, RecallError):
        return {"error": str(answer)}
    fields = ("model", "snapshot_version", "live_version", "error", "items", "index", "canary_version", "canary_share")
    models = [{field: getattr(model, field) for field in fields} for model in answer.models]
    about = {"models": models, "waiting": answer.waiting, "draining": answer.draining}
    if answer.HasField("experiment"):
        of = ("experiment", "experiment_hash", "state", "share", "error")
        about["experiment"] = {field: getattr(answer.experiment, field) for field in of}
    return about


@contextmanager
def _client(
    addresses: list[str],
    deadline_s: float,
    token_file: Path | None,
    tls: tuple[bool, Path | None, Path | None, Path | None, str | None],
) -> "Iterator[RecallClient]":
    from contracts.config.regular_file import read_regular
    from contracts.config.secret import LARGEST
    from serving.client import ClientTls, RecallClient

    wanted, ca, certificate, key, server_name = tls
    encrypted = wanted or ca or certificate or key
    try:
        token = None if token_file is None else read_regular(token_file, LARGEST).decode().strip()
        client = RecallClient(
            addresses,
            deadline_s=deadline_s,
            tls=ClientTls(ca, certificate, key, server_name) if encrypted else None,
            token=token,
            wait_for_ready=False,  # somebody sits before it: better say at once that nothing is there
        )
    except OSError as error:
        raise UsageError(f"Cannot read {token_file}: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise UsageError(f"{token_file} holds no token.") from None
    except ValueError as error:
        raise UsageError(str(error)) from error
    with client:
        yield client


def _failure(code: str, message: str) -> UsageError | RunError:
    return UsageError(message) if code in {"INVALID_ARGUMENT", "UNAUTHENTICATED"} else RunError(message)
