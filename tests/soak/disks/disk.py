"""A disk that may lose power: from recorded calls to what may legally be left of them.

What POSIX promises, and no more: bytes last once their file was synced, names once their directory was. Of
everything else any part may be there, in any order; a write may be there in part, sector by sector.
"""

from __future__ import annotations

import base64
import enum
import random
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

_SECTOR = 512


class Fate(enum.Enum):
    """What becomes of a change that was not synced."""

    LOST = "not there"
    WHOLE = "there"
    TORN = "some of its sectors are there"
    SIZED = "the file is as long as it makes it, of zeros"


Fates = Callable[[], Fate]
"""Draws what becomes of the next change; names have no sectors, so anything but `LOST` keeps them."""


class _Write(NamedTuple):
    offset: int
    data: bytes


class _Truncate(NamedTuple):
    size: int


class _File:
    def __init__(self) -> None:
        self.synced = b""
        self.waiting: list[_Write | _Truncate] = []

    def sync(self) -> None:
        self.synced, self.waiting = self.left(lambda: Fate.WHOLE, random.Random(0)), []

    def left(self, fates: Fates, rng: random.Random) -> bytes:
        content = bytearray(self.synced)
        for change in self.waiting:
            fate = fates()
            if fate is Fate.LOST:
                continue
            if isinstance(change, _Truncate):
                del content[change.size :]
                content.extend(bytes(change.size - len(content)))
                continue
            start, end = change.offset, change.offset + len(change.data)
            content.extend(bytes(max(0, end - len(content))))
            while start < end and fate is not Fate.SIZED:
                edge = min(end, (start // _SECTOR + 1) * _SECTOR)
                if fate is Fate.WHOLE or rng.random() < 0.5:
                    content[start:edge] = change.data[start - change.offset : edge - change.offset]
                start = edge
        return bytes(content)


_Names = dict[str, "_File | _Directory | None"]


class _Directory:
    def __init__(self) -> None:
        self.synced: _Names = {}
        self.waiting: list[_Names] = []

    def sync(self) -> None:
        self.synced, self.waiting = self.left(lambda: Fate.WHOLE), []

    def left(self, fates: Fates) -> _Names:
        names = dict(self.synced)
        for change in self.waiting:
            if fates() is not Fate.LOST:
                names.update(change)
        return {name: node for name, node in names.items() if node is not None}


class Disk:
    """What the calls so far have made, and what of it would survive."""

    def __init__(self) -> None:
        self._root = _Directory()

    def apply(self, call: list[Any]) -> None:
        """Do a recorded call (see `recorder`): its name, its paths below the root, its data."""
        match call:
            case ["create", path]:
                self._change(path, _File())
            case ["mkdir", path]:
                self._change(path, _Directory())
            case ["unlink" | "rmdir", path]:
                self._change(path, None)
            case ["link", old, new]:
                self._change(new, self._find(old))
            case ["rename", old, new]:
                self._rename(PurePosixPath(old), PurePosixPath(new))
            case ["write", path, offset, data]:
                self._file(path).waiting.append(_Write(offset, base64.b64decode(data)))
            case ["truncate", path, size]:
                self._file(path).waiting.append(_Truncate(size))
            case ["sync", path]:
                self._find(path).sync()
            case _:
                raise AssertionError(f"not a call: {call}")

    def waiting(self) -> int:
        """Return how many changes would not certainly survive."""
        return _waiting(self._root)

    def cut(self, directory: Path, fates: Fates, rng: random.Random) -> None:
        """Make an empty directory hold what one loss of power leaves.

        Args:
            directory: Stands for the root.
            fates: What becomes of each change that was not synced.
            rng: Chooses sectors.
        """
        written: dict[_File, Path] = {}

        def fill(target: Path, node: _Directory) -> None:
            for name, child in node.left(fates).items():
                path = target / name
                if isinstance(child, _Directory):
                    path.mkdir()
                    fill(path, child)
                elif isinstance(child, _File) and child in written:
                    path.hardlink_to(written[child])
                elif isinstance(child, _File):
                    path.write_bytes(child.left(fates, rng))
                    written[child] = path

        fill(directory, self._root)

    def _rename(self, old: PurePosixPath, new: PurePosixPath) -> None:
        node = self._find(str(old))
        if old.parent == new.parent:
            self._directory(old.parent).waiting.append({old.name: None, new.name: node})
        else:
            self._change(str(new), node)
            self._change(str(old), None)

    def _change(self, path: str, node: _File | _Directory | None) -> None:
        pure = PurePosixPath(path)
        self._directory(pure.parent).waiting.append({pure.name: node})

    def _find(self, path: str) -> _File | _Directory:
        node: _File | _Directory = self._root
        for part in PurePosixPath(path).parts:
            assert isinstance(node, _Directory)
            found = node.left(lambda: Fate.WHOLE)[part]
            assert found is not None
            node = found
        return node

    def _file(self, path: str) -> _File:
        node = self._find(path)
        assert isinstance(node, _File)
        return node

    def _directory(self, path: PurePosixPath) -> _Directory:
        node = self._find(str(path))
        assert isinstance(node, _Directory)
        return node


def _waiting(node: _Directory | _File) -> int:
    count = len(node.waiting)
    if isinstance(node, _Directory):
        count += sum(_waiting(child) for child in node.left(lambda: Fate.WHOLE).values() if child is not None)
    return count
