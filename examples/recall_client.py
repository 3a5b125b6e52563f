"""Ask two replicas for items, as a production service does: balanced on the client's side, no proxy between.

    driftline serve --settings one.yaml &    # serving.port: 7001
    driftline serve --settings two.yaml &    # serving.port: 7002
    python examples/recall_client.py 127.0.0.1:7001 127.0.0.1:7002

End one replica while this runs, by kill -9 too: the other one takes over, and no call fails.
"""  # noqa: INP001  (a script)

import asyncio
import sys
from collections import Counter

from serving.client import AsyncRecallClient, DeadlineError, RecallError

USERS = range(1, 1001)
AT_ONCE = 16


async def main(replicas: list[str]) -> None:
    """Ask for a thousand users' items and say what came."""
    came: Counter[str] = Counter()
    # One client for the whole service. It keeps a connection to each replica, asks each all the time whether it is
    # ready, and gives the calls to those that are, in turn. All attempts at a call share the 200 ms.
    async with AsyncRecallClient(replicas, deadline_s=0.2) as client:
        at_once = asyncio.Semaphore(AT_ONCE)

        async def show(user_id: int) -> None:
            async with at_once:
                try:
                    # `simulated`, because nobody looks at these items: they count, and the report says how many did. A
                    # service that shows them leaves it out, and sends found.request_id with the feedback on them.
                    found = await client.recall(user_id, k=20, simulated=True)
                except DeadlineError:
                    came["nothing in time"] += 1  # show what you have at hand
                except RecallError as error:
                    came[error.code.name] += 1
                else:
                    came[f"{found.model} {found.snapshot_version} {found.fallback}".strip()] += 1

        await asyncio.gather(*map(show, USERS))
    for what, times in came.most_common():
        sys.stdout.write(f"{times:5} {what}\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
