"""A kind of files that a process loads: a small sound example, how it is changed, and how it is read."""

import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from tests.safety.mutations import Random, mutated

Files = dict[str, bytes]


class Refused(Exception):
    """What is wrong with the files, in a sentence, where it is told and not raised."""


class Kind(ABC):
    """Sound files below `home`, and how they are changed and read."""

    refuses: tuple[type[Exception], ...] = (Refused,)
    bare = False  # whether the files have no checksum, as people write them: what is accepted may differ then
    names_files = False  # whether what is read says which other files are

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True)
        self.prepare()
        self.sound = {str(path.relative_to(home)): path.read_bytes() for path in self._files()}

    def _files(self) -> list[Path]:
        return sorted(path for path in self.home.rglob("*") if path.is_file() and self.counts(path))

    def counts(self, path: Path) -> bool:
        """Whether a file is one of those that are changed."""
        return path.name not in ("lock", ".lock", "owner.lock")

    @abstractmethod
    def prepare(self) -> None:
        """Write the sound files."""

    @abstractmethod
    def read(self) -> Any:
        """What they hold, as something that compares by value."""

    def as_before(self, value: str, sound: str) -> bool:
        """Whether what was accepted is what the sound files hold."""
        return value == sound

    def close(self) -> None:
        """Let go of what is held; by default nothing is."""
        return

    def crafted(self, random: Random) -> Files:
        """Files with other values in a form that is right, as somebody would write who can; none where not done."""
        return {}

    def change(self, random: Random) -> bool:
        """Change the files on the disk; whether what is accepted must be as before."""
        if random.random() < 0.3 and (files := self.crafted(random)):
            for name, content in files.items():
                (self.home / name).write_bytes(content)
            return False
        for _ in range(1 if random.random() < 0.8 else 2):
            self._damage(random)
        return not self.bare

    def _damage(self, random: Random) -> None:
        names = list(self.sound)
        name = names[random.integers(len(names))]
        path, others = self.home / name, [self.sound[each] for each in names if each != name]
        choice = random.random()
        if path.is_dir() or path.is_symlink():
            return
        if choice < 0.02:
            path.unlink(missing_ok=True)
        elif choice < 0.03:
            path.unlink(missing_ok=True)
            path.mkdir(exist_ok=True)
        elif choice < 0.05:
            path.unlink(missing_ok=True)
            path.symlink_to(("/dev/null", path.parent, path)[random.integers(3)])
        elif path.is_file() or not path.exists():
            path.write_bytes(mutated(random, self.sound[name], others))

    def repair(self) -> None:
        """Put the sound files back."""
        for path in sorted(self.home.rglob("*"), reverse=True):
            is_file = path.is_symlink() or path.is_file()
            if is_file and self.counts(path) and str(path.relative_to(self.home)) not in self.sound:
                path.unlink()
        for name, content in self.sound.items():
            path = self.home / name
            if path.is_symlink():
                path.unlink()
            elif path.is_dir():
                path.rmdir()
            if not path.is_file() or path.read_bytes() != content:
                path.write_bytes(content)


def npz(tables: Any) -> bytes:
    buffer = io.BytesIO()
    if isinstance(tables, dict):
        plain = {name: each for name, each in tables.items() if isinstance(each, np.ndarray)}
        np.savez(buffer, **plain)
    return buffer.getvalue()
