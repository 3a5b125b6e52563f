"""`driftline forget`: take users out of everything, and look for what is left of them."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contracts.config.settings import Settings, load
from contracts.runtime.clock import SystemClock
from driftline.cli.options import SettingsOption, kafka_errors
from driftline.errors import UsageError

if TYPE_CHECKING:
    from driftline.forget.request import Left
    from driftline.forget.user import User

LOOK_EVERY_S = 2.0
STAYS = (
    "What was learned from the user stays in the models' weights, and what was counted in sums over many: reports that "
    "were written, aggregates that were saved, an experiment's counts of events. Nobody is named in them."
)
CODES = (
    "Exit code: 0 nothing is left but records of topics that go by their age, 1 something else is left, or a worker "
    "has yet to read the request, 2 the command cannot be carried out."
)


def forget(
    settings: SettingsOption,
    user_ids: Annotated[list[int] | None, typer.Argument(min=1, help="Users by number.", show_default=False)] = None,
    user_key: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="A user by text id; repeatable.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--verify", help="Ask for nothing: look where the users are.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Until all who hold something have let go of it.")] = True,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="That is waited at most.")] = 300.0,
    trim_topics: Annotated[
        bool,
        typer.Option(
            help="Let go of the topics' beginnings up to the users' last records, and of what others have there too, "
            "once all have read it. Nothing can be rebuilt from these records then."
        ),
    ] = False,
    keep: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Days kept by `experiment report --keep`: emptied where a user is there."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of sentences.")] = False,
) -> None:
    """Forget users: their state, features, archived examples, checkpoints, sums in the experiment, dead letters.

    A request is sent, which every worker follows when it reads it, now or when it runs again. Asking twice does no
    harm. Then everything is searched, and what is left is told. Who comes back is a new user.
    """
    loaded = load(settings)
    users = _users(user_ids or [], user_key or [])
    with kafka_errors(loaded.kafka):
        _require_stores(loaded)
        asked = [] if dry_run else _ask(loaded, users, quiet=as_json)
        if not dry_run:
            _empty_kept(keep or [], users, quiet=as_json)
        left = _settle(loaded, users, timeout if wait and not dry_run else 0.0, dry_run=dry_run, quiet=as_json)
        if trim_topics and not dry_run:
            _trim(loaded, left, quiet=as_json)
            left = _settle(loaded, users, 0.0, dry_run=True, quiet=as_json)
        _tell(loaded, left, as_json=as_json)
    _note_end(loaded, [name for name, each in zip(asked, left, strict=False) if each.settled])
    raise typer.Exit(0 if all(each.settled for each in left) else 1)


def _users(numbers: Sequence[int], texts: Sequence[str]) -> "list[User]":
    from contracts.messages.ids import BadTextId
    from driftline.forget.user import User

    try:
        users = [*map(User, numbers), *map(User.of_text, texts)]
    except BadTextId as error:
        raise UsageError(f"A --user-key {error}.") from None
    if not users:
        raise UsageError("Name a user, by number or with --user-key.")
    if any(user.number >= 1 << 63 for user in users):
        raise UsageError("A user's number is below 2^63.")
    return list(dict.fromkeys(users))


def _require_stores(settings: Settings) -> None:
    """See that all can be searched, and rows removed, before anything is asked."""
    from contracts.kafka import bus
    from feature_repo.config import online_store

    online_store(settings.feature_repo)
    bus.check_topics(settings.kafka)


def _ask(settings: Settings, users: "Sequence[User]", *, quiet: bool) -> list[str]:
    from driftline.forget.request import ask

    requests = ask(settings, users, SystemClock())
    _say(f"Asked to forget {', '.join(map(str, users))}.", quiet=quiet)
    return requests


def _note_end(settings: Settings, requests: Sequence[str]) -> None:
    from driftline.forget.request import note

    for name in requests:
        note(settings, {"request": name, "settled_ms": SystemClock().now_ms()})


def _empty_kept(folders: Sequence[Path], users: "Sequence[User]", *, quiet: bool) -> None:
    from abtest.incremental.store import forget_users

    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder.")
        if forget_users(folder, [user.number for user in users]):
            _say(f"{folder} was emptied: the next report with --keep reads all days again.", quiet=quiet)


def _settle(
    settings: Settings, users: "Sequence[User]", timeout_s: float, *, dry_run: bool, quiet: bool
) -> "list[Left]":
    """Look, rewrite the dead letters, and look again, until nothing is left to wait for or time is up."""
    from driftline.forget import topics
    from driftline.forget.request import look

    clock, pause = SystemClock(), threading.Event()
    until_s = clock.elapsed_s() + timeout_s
    before = ""
    while True:
        left = look(settings, users)
        if not dry_run and any(each.letters for each in left) and topics.can_delete(settings.kafka):
            gone = topics.rewrite_letters(settings.kafka, users)
            _say(f"{gone} dead letters are gone; those of others have new ids.", quiet=quiet)
            left = look(settings, users)
        open_places = sorted({found.place for each in left for found in each.stores})
        open_groups = sorted({each.group for one in left for each in one.waiting})
        done = not (open_places or open_groups)
        if done or clock.elapsed_s() >= until_s:
            return left
        now = f"Waiting for {', '.join([*open_groups, *open_places])}."
        if now != before:
            _say(now, quiet=quiet)
        before = now
        pause.wait(LOOK_EVERY_S)


def _trim(settings: Settings, left: "Sequence[Left]", *, quiet: bool) -> None:
    from driftline.forget import topics

    if not topics.can_delete(settings.kafka):
        raise UsageError("The embedded broker lets go of no record while it runs; --trim-topics takes Apache Kafka.")
    for each in left:
        for found in each.events:
            for behind in topics.trim(settings.kafka, found):
                _say(
                    f"{behind.topic} {behind.partition} is not trimmed: {behind.group} has come to offset "
                    f"{behind.offset} of {behind.request}.",
                    quiet=quiet,
                )


def _tell(settings: Settings, left: "Sequence[Left]", *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([_as_json(settings, each) for each in left], indent=2))
        return
    for each in left:
        for line in _lines(settings, each):
            typer.echo(line)
    typer.echo(STAYS)


def _lines(settings: Settings, left: "Left") -> list[str]:
    lines = [f"{found.place}: {found.what} of {left.user} in {found.where}" for found in left.stores]
    lines += [
        f"{each.group} has yet to read the request about {left.user} (it is at offset {each.offset} of {each.topic} "
        f"{each.partition}, the request is {each.request}); it follows as soon as it runs"
        for each in left.waiting
    ]
    if not left.stores:
        lines.append(f"No store has anything of {left.user}.")
    if not left.user.patterns:
        lines.append(f"{left.user} is too short an id to be searched for byte by byte: stores were searched decoded.")
    lines += [
        f"topic {each.topic}: {each.records} records of {left.user} in partition {each.partition}, "
        f"{_until(settings, each)}"
        for each in left.topics
    ]
    return lines


def _until(settings: Settings, found: Any) -> str:
    from contracts.kafka import bus
    from driftline.forget import topics

    if found.topic == bus.EXPERIMENTS:
        return "for good: an operator named the user in a change of an experiment, and these are all kept"
    if not topics.can_delete(settings.kafka):
        return "until the embedded broker ends"
    by_ms = topics.gone_by_ms(settings.kafka, found)
    return f"gone by {_utc(by_ms)}" if by_ms is not None else "for good, as no retention is set (retention.topics_ms)"


def _utc(at_ms: int) -> str:
    from driftline.tables import utc

    return f"{utc(at_ms)} UTC"


def _as_json(settings: Settings, left: "Left") -> dict[str, Any]:
    from driftline.forget import topics

    deletes = topics.can_delete(settings.kafka)
    return {
        "user": left.user.text or left.user.number,
        "settled": left.settled,
        "by_bytes": sorted(left.user.patterns),
        "stores": [found._asdict() for found in left.stores],
        "waiting": [each._asdict() for each in left.waiting],
        "topics": [
            each._asdict() | {"gone_by_ms": topics.gone_by_ms(settings.kafka, each) if deletes else None}
            for each in left.topics
        ],
    }


def _say(sentence: str, *, quiet: bool) -> None:
    typer.echo(sentence, err=quiet)
