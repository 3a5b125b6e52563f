"""Telling people by a webhook and by a mail program, again until it is taken, in a thread of its own."""

import shlex
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace
from http.client import HTTPException
from urllib.parse import SplitResult, urlsplit

import structlog

from contracts.runtime.clock import HOUR_MS, MINUTE_MS, SECOND_MS, Clock
from driftline.errors import UsageError
from driftline.experiment.week.book import Book, Waiting
from driftline.experiment.week.notices import Notice, mail, slack

log = structlog.get_logger()
Send = Callable[[Notice], None]
FIRST_PAUSE_MS, LONGEST_PAUSE_MS, GIVES_UP_MS = 10 * SECOND_MS, 15 * MINUTE_MS, 24 * HOUR_MS
WEBHOOK_TIMEOUT_S, MAIL_TIMEOUT_S = 10.0, 60.0


class SendError(Exception):
    """It was not taken; one sentence says why."""


class _NotElsewhere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: a POST would arrive there as a GET without the message, and be answered as if taken."""

    def redirect_request(self, *_: object) -> None:
        """Nothing: the answer is an error."""


def webhook(url: str) -> Send:
    """Send notices to an address that takes Slack's messages. Whoever knows the address can write there: it is secret.

    Raises:
        UsageError: it is no address of a webhook.

    """
    if not _is_address(url):
        raise UsageError("The webhook's address does not begin with https:// and a host, or is no address.")
    opener = urllib.request.build_opener(_NotElsewhere)

    def send(notice: Notice) -> None:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        request = urllib.request.Request(url, slack(notice), headers, method="POST")  # noqa: S310 (http, as above)
        try:
            with opener.open(request, timeout=WEBHOOK_TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            with error:
                raise SendError(f"The webhook answers {error.code}.") from None
        except (OSError, ValueError, HTTPException) as error:  # its text may have the address
            raise SendError(f"The webhook does not answer by HTTP ({type(error).__name__}).") from None

    return send


def _is_address(url: str) -> bool:
    try:
        parts: SplitResult = urlsplit(url)
        _ = parts.port  # raises where it is no number up to 65535
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)


def mailer(command: str, to: str) -> Send:
    """Hand notices to a program that takes a whole message, such as `sendmail -t`.

    Raises:
        UsageError: there is no such program, or whom to is no address of one line.

    """
    if not to.strip() or not to.isprintable():
        raise UsageError("--mail-to: an address of one line is wanted.")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--mail: {str(error)[:1].lower()}{str(error)[1:]} in {command}.") from None
    if not words or shutil.which(words[0]) is None:
        raise UsageError(f"--mail: there is no program {' '.join(words[:1]) or 'in an empty text'}.")

    def send(notice: Notice) -> None:
        try:
            done = subprocess.run(
                words, input=mail(notice, to), capture_output=True, timeout=MAIL_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SendError(f"{words[0]} did not end well ({type(error).__name__}).") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise SendError(f"{words[0]} ended with {done.returncode}{f': {said[-1]}' if said else ''}.")

    return send


class Outbox:
    """Sends what the book says is waiting."""

    def __init__(self, book: Book, senders: Mapping[str, Send], clock: Clock) -> None:
        self._book = book
        self._senders = senders
        self._clock = clock

    def step(self) -> None:
        """Try what is due, each once."""
        for one in self._book.page.waiting:
            now_ms = self._clock.now_ms()
            if one.next_ms <= now_ms:
                self._try(one, now_ms)

    def _try(self, one: Waiting, now_ms: int) -> None:
        send = self._senders.get(one.to)
        if send is None:
            log.warning("a notice is for a sender that this run has not", to=one.to, subject=one.notice.subject)
            self._book.settle(one, None, lost=True)
            return
        try:
            send(one.notice)
        except SendError as error:
            again = after(one, now_ms)
            said = {"to": one.to, "subject": one.notice.subject, "why": str(error)}
            if again is None:
                log.error("a notice was given up", **said)  # noqa: TRY400
            else:
                log.warning("a notice was not taken; it is tried again", **said, in_s=(again.next_ms - now_ms) // 1000)
            self._book.settle(one, again, lost=again is None)
        else:
            self._book.settle(one, None)


def after(one: Waiting, now_ms: int) -> Waiting | None:
    """What comes after a try that failed: another after twice the pause; None where it is a day old.

    >>> notice = Notice("k", "alarm", 0, "s", "t")
    >>> after(Waiting(notice, "mail", tries=2), 5).next_ms, after(Waiting(notice, "mail"), GIVES_UP_MS)
    (40005, None)
    """
    if now_ms - one.notice.at_ms >= GIVES_UP_MS:
        return None
    pause_ms = min(FIRST_PAUSE_MS << min(one.tries, 20), LONGEST_PAUSE_MS)
    return replace(one, tries=one.tries + 1, next_ms=now_ms + pause_ms)
