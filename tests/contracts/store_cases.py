"""Objects that take turns by a seed, and whose answers may be lost after, or before, they have written."""

import random
import threading
from collections.abc import Callable, Iterable, Mapping

from contracts.storage.objects import AwayError, Blob, Objects, Stat


class Turns:
    """Lets actors, each in a thread, go on one at a time; which one is drawn at each of their calls to the store."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self._go: dict[int, threading.Semaphore] = {}
        self._back = threading.Semaphore(0)

    def pause(self) -> None:
        """Wait for the next turn; whoever is no actor goes on."""
        go = self._go.get(threading.get_ident())
        if go is not None:
            self._back.release()
            go.acquire()

    def run(self, actors: Mapping[str, Callable[[], None]]) -> dict[str, BaseException]:
        """Run all to their ends; what they raised, by name."""
        errors: dict[str, BaseException] = {}
        alive: list[tuple[threading.Thread, threading.Semaphore]] = []

        def play(name: str, act: Callable[[], None], go: threading.Semaphore) -> None:
            self._go[threading.get_ident()] = go
            go.acquire()
            try:
                act()
            except BaseException as error:  # noqa: BLE001  the test looks at it
                errors[name] = error
            finally:
                del self._go[threading.get_ident()]
                ended.add(go)
                self._back.release()

        ended: set[threading.Semaphore] = set()
        for name, act in actors.items():
            go = threading.Semaphore(0)
            alive.append((threading.Thread(target=play, args=(name, act, go)), go))
            alive[-1][0].start()
        while alive:
            thread, go = self.draw.choice(alive)
            go.release()
            self._back.acquire()
            if go in ended:
                thread.join()
                alive.remove((thread, go))
        return errors


class Unsteady:
    """`Objects` that take turns; a share of the writes is done, or not done, and the answer is lost."""

    def __init__(self, real: Objects, turns: Turns, lost: float, written: Callable[[str, bytes], None]) -> None:
        self._real = real
        self._turns = turns
        self._lost = lost
        self._written = written

    def get(self, key: str, known: str | None = None) -> Blob | None:
        self._turns.pause()
        return self._real.get(key, known)

    def create(self, key: str, content: bytes) -> str:
        return self._write(key, content, lambda: self._real.create(key, content))

    def swap(self, key: str, content: bytes, etag: str) -> str:
        return self._write(key, content, lambda: self._real.swap(key, content, etag))

    def put(self, key: str, content: bytes) -> None:
        self._turns.pause()
        self._real.put(key, content)

    def under(self, prefix: str) -> list[Stat]:
        self._turns.pause()
        return self._real.under(prefix)

    def folders(self) -> list[str]:
        self._turns.pause()
        return self._real.folders()

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._turns.pause()
            self._real.delete([key])

    def _write(self, key: str, content: bytes, act: Callable[[], str]) -> str:
        self._turns.pause()
        fate = self._turns.draw.random()
        if fate < self._lost / 2:
            raise AwayError("it timed out before it was written")
        etag = act()
        self._written(key, content)
        if fate < self._lost:
            raise AwayError("it timed out after it was written")
        return etag
