"""How the load generator asks an HTTP server; aiohttp comes with `make bench-serving`."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from http import HTTPStatus

import aiohttp


async def post(
    addresses: Sequence[str], deadline_s: float, stack: AsyncExitStack
) -> list[Callable[[bytes], Awaitable[bytes]]]:
    """For each address a function that posts a body to its /recall and returns what was answered.

    Connections are kept open, and there are as many as there are requests under way. An answer that is no 200 raises
    an OSError.
    """
    session = await stack.enter_async_context(
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=deadline_s),
            headers={"content-type": "application/json"},
        )
    )

    def to(address: str) -> Callable[[bytes], Awaitable[bytes]]:
        url = f"http://{address}/recall"

        async def ask(body: bytes) -> bytes:
            async with session.post(url, data=body) as reply:
                if reply.status != HTTPStatus.OK:
                    raise OSError(f"{url} answered {reply.status}")
                return await reply.read()

        return ask

    return [to(address) for address in addresses]
