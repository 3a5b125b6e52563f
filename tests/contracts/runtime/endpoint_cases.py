"""Asking a process what it tells over HTTP."""

import json
import urllib.error
import urllib.request

from contracts.runtime.clock import SystemClock

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
LONG_S = 60.0  # what has not come by then does not come, on a busy machine too


def get(port: int, path: str) -> tuple[int, str]:
    """Status code and body."""
    try:
        with DIRECT.open(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def wait_for(port: int, code: int, missing: list[str]) -> None:
    """Ask /readyz until it answers so."""
    clock = SystemClock()
    deadline_s = clock.elapsed_s() + LONG_S
    while True:
        answered, body = get(port, "/readyz")
        if (answered, json.loads(body).get("missing", [])) == (code, missing):
            return
        assert clock.elapsed_s() < deadline_s, body
