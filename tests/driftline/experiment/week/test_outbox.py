"""Notices reach a real web server and a real program, again until they are taken, and over restarts."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from contracts.runtime.clock import ManualClock
from contracts.runtime.durable import StateError
from driftline.errors import UsageError
from driftline.experiment.week.book import FILE, Book, read
from driftline.experiment.week.notices import Notice, slack
from driftline.experiment.week.outbox import FIRST_PAUSE_MS, GIVES_UP_MS, Outbox, mailer, webhook

NOTICE = Notice("day-01", "report", 0, "week: day 1 of 7", "treatment: inconclusive", "")


class Hook(HTTPServer):
    """A webhook that answers with `status` and keeps what it got."""

    def __init__(self) -> None:
        self.status, self.got = 200, list[bytes]()
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.got.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path, "week", "abc")


def test_a_webhook_gets_slacks_json_once(hook: Hook, book: Book) -> None:
    outbox = Outbox(book, {"webhook": webhook(f"http://127.0.0.1:{hook.server_port}/T0/B0")}, ManualClock())
    assert book.tell(NOTICE, ["webhook"])
    assert not book.tell(NOTICE, ["webhook"])
    outbox.step()
    outbox.step()
    assert hook.got == [slack(NOTICE)]
    assert json.loads(hook.got[0])["text"] == "■ *week: day 1 of 7*\ntreatment: inconclusive"


def test_one_that_refuses_gets_it_again_later_and_others_are_not_delayed(
    hook: Hook, book: Book, tmp_path: Path
) -> None:
    hook.status, clock = 500, ManualClock()
    senders = {
        "webhook": webhook(f"http://127.0.0.1:{hook.server_port}/"),
        "mail": mailer(f"{sys.executable} -c 'import sys; sys.stdin.read()'", "a@example.org"),
    }
    book.tell(NOTICE, senders)
    Outbox(book, senders, clock).step()
    assert [(one.to, one.tries, one.next_ms) for one in book.page.waiting] == [("webhook", 1, FIRST_PAUSE_MS)]
    hook.status = 200
    again = Outbox(Book(tmp_path, "week", "abc"), senders, clock)  # after a restart
    again.step()
    assert len(hook.got) == 1, "its time has not come"
    clock.advance(FIRST_PAUSE_MS)
    again.step()
    assert len(hook.got) == 2
    page = read(tmp_path)
    assert page is not None
    assert (page.waiting, page.lost) == ((), ())


def test_nobody_at_the_address_for_a_day_is_said_and_given_up(book: Book) -> None:
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        clock = ManualClock()
        outbox = Outbox(book, {"webhook": webhook(f"http://127.0.0.1:{taken.getsockname()[1]}/secret")}, clock)
        book.tell(NOTICE, ["webhook"])
        tries = 0
        while book.page.waiting:
            clock.at_ms = book.page.waiting[0].next_ms
            outbox.step()
            tries += 1
    assert book.page.lost == ("webhook: week: day 1 of 7",)
    assert clock.at_ms >= GIVES_UP_MS
    assert tries > 90


def test_mail_is_a_whole_message_with_the_page(book: Book, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>the page</p>")
    program = tmp_path / "sendmail.py"
    program.write_text("import pathlib, sys\npathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())\n")
    send = mailer(f"{sys.executable} {program} {tmp_path / 'sent'}", "team@example.org")
    book.tell(Notice("k", "report", 0, "week: final, treatment: ship", "Ship: treatment.", str(tmp_path)), ["mail"])
    Outbox(book, {"mail": send}, ManualClock()).step()
    message = message_from_bytes((tmp_path / "sent").read_bytes())
    assert (message["To"], message["Subject"]) == ("team@example.org", "[driftline] week: final, treatment: ship")
    text, page = (part.get_payload(decode=True) for part in message.get_payload())
    assert (text, page) == (b"Ship: treatment.\n", b"<p>the page</p>")
    assert book.page.waiting == ()


def test_a_program_that_fails_is_tried_again(book: Book) -> None:
    failing = mailer(f"{sys.executable} -c 'import sys; sys.exit(\"the queue is full\")'", "a@example.org")
    book.tell(NOTICE, ["mail"])
    Outbox(book, {"mail": failing}, ManualClock()).step()
    assert [one.tries for one in book.page.waiting] == [1]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", "answers 302"),
        (b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", "answers 307"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer by HTTP"),
        (b"", "does not answer by HTTP"),
    ],
)
def test_an_answer_that_takes_nothing_is_tried_again(book: Book, answer: bytes, why: str) -> None:
    asked = []

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as lines:
            head = [line for line in iter(lines.readline, b"\r\n") if line]
            lines.read(next(int(line.split()[1]) for line in head if line.lower().startswith(b"content-length")))
            asked.append(head[0])
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        send = webhook(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        book.tell(NOTICE, ["webhook"])
        with capture_logs() as logs:
            Outbox(book, {"webhook": send}, ManualClock()).step()
        thread.join()
    assert asked == [b"POST / HTTP/1.1\r\n"], "and no second request"
    assert [one.tries for one in book.page.waiting] == [1]
    assert why in logs[0]["why"]


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1/secret",
        "http://h:port/secret",
        "http://h:70000/secret",
        "http://h/secret x",
        "http://h/sécret",
        "http://h/secret\nx",
    ],
)
def test_what_no_request_can_go_to_is_refused_at_once(url: str) -> None:
    with pytest.raises(UsageError, match="is no address") as refused:
        webhook(url)
    assert "cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("command", "to", "why"),
    [
        (f"{sys.executable} -c 'x", "a@example.org", "--mail: no closing quotation in "),
        (sys.executable, "a@example.org\nBcc: b@example.org", "--mail-to: an address of one line"),
        (sys.executable, " ", "--mail-to: an address of one line"),
    ],
)
def test_a_mail_that_cannot_be_written_is_refused_at_once(command: str, to: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        mailer(command, to)


def test_what_is_no_sender_is_refused_and_an_address_is_not_said() -> None:
    with pytest.raises(UsageError, match=r"does not begin with https://") as refused:
        webhook("hooks.example.org/T0/secret")
    assert "secret" not in str(refused.value)
    with pytest.raises(UsageError, match="there is no program no-such-mailer"):
        mailer("no-such-mailer -t", "a@example.org")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x00", "cannot be read"),
        (b"[]", "has format None"),
        (b'{"format": 2}', "has format 2"),
        (b'{"format": 1, "experiment": "week"}', "hash: Field required"),
        (b'{"format": 1, "experiment": "week", "hash": "abc", "more": 1}', "more: "),
        (b'{"format": 1, "experiment": "week", "hash": "abc", "waiting": [{"to": "mail"}]}', "waiting.0.notice: "),
        (b'{"format": 1, "experiment": "week", "hash": "abc", "waiting": [{"tries": -1}]}', "waiting.0"),
    ],
)
def test_a_damaged_file_is_one_sentence_and_stays(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(StateError, match=why):
        Book(tmp_path, "week", "abc")
    assert (tmp_path / FILE).read_bytes() == content


def test_another_definition_takes_another_folder(book: Book, tmp_path: Path) -> None:
    book.did(["day-01"])
    with pytest.raises(StateError, match="give another --out"):
        Book(tmp_path, "week", "def")
    assert Book(tmp_path, "week", "abc").page.done == ("day-01",)


def test_one_damaged_file_hides_no_other_experiment_of_the_list(tmp_path: Path) -> None:
    for name in ("early", "late"):
        (tmp_path / name).mkdir()
        Book(tmp_path / name, name, "abc").did(["day-01"])
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / FILE).write_text("{")
    command = [sys.executable, "-m", "driftline", "experiment", "list", str(tmp_path)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert listed.returncode == 2
    assert [line.split()[0] for line in listed.stdout.splitlines() if line.startswith((" early ", " late "))] == [
        "early",
        "late",
    ]
    assert listed.stderr == f"driftline: {tmp_path / 'm' / FILE} cannot be read; bring it back, or move it away.\n"
