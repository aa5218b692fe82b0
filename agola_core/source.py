"""Source archives: a directory as git sees it, packed into a tar for the `clone` step of a run.

In a git checkout that is what is tracked or untracked, as it lies there; ignored files and `.git` are left out.
Elsewhere, and in a directory that the checkout around it ignores, it is everything. The same tree gives the same
bytes: sorted, without times or owners.
"""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from agola_core.compression import compress
from agola_core.errors import BadRequestError

_CHUNK = 1 << 20
_LEFT_OUT = {".git", ".agola-data"}


def pack_tree(
    path: str | os.PathLike[str], *, include_untracked: bool = True, include_ignored: bool = False
) -> Iterator[bytes]:
    """Yield a directory as a zstd-compressed tar, in pieces.

    Args:
        path: The directory.
        include_untracked: Whether files that git does not track are packed.
        include_ignored: Whether files that git is told to ignore are packed.

    Raises:
        BadRequestError: It is not a directory, or cannot be read.
    """
    root = Path(path)
    if not root.is_dir():
        raise BadRequestError(f"{str(root)!r} is not a directory")
    names = None
    if not _is_ignored(root):
        names = _git_files(root, include_untracked=include_untracked, include_ignored=include_ignored)
    if names is None:
        names = _all_files(root)
    return _packed(root, sorted(names))


def _packed(root: Path, names: list[str]) -> Iterator[bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            target = root / name
            try:
                info = archive.gettarinfo(str(target), arcname=name)
                if info is None or not (info.isreg() or info.issym() or info.isdir()):
                    continue
                _neutral(info)
                if info.isreg():
                    with target.open("rb") as file:
                        archive.addfile(info, file)
                else:
                    archive.addfile(info)
            except FileNotFoundError:  # deleted since it was listed
                continue
            except OSError as error:
                raise BadRequestError(f"cannot pack {name!r}: {error}") from error
            if buffer.tell() >= _CHUNK:
                yield compress(buffer.getvalue(), 1)
                buffer.seek(0)
                buffer.truncate()
    yield compress(buffer.getvalue(), 1)


def _neutral(info: tarfile.TarInfo) -> None:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    info.mode = 0o755 if info.mode & stat.S_IXUSR else 0o644
    if info.islnk():  # a second name of a file: packed as a file of its own
        info.type = tarfile.REGTYPE


def _is_ignored(root: Path) -> bool:
    """Return whether a checkout around the directory ignores it: then git knows nothing of what is in it."""
    try:
        done = subprocess.run(["git", "-C", str(root), "check-ignore", "-q", "."], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def _git_files(root: Path, *, include_untracked: bool, include_ignored: bool) -> list[str] | None:
    """Return the files of a git checkout; None when the directory is not in one, or git is missing."""
    commands = [["ls-files", "-z", "--cached"]]
    if include_untracked:
        commands.append(["ls-files", "-z", "--others", "--exclude-standard"])
    if include_ignored:
        commands.append(["ls-files", "-z", "--others", "--ignored", "--exclude-standard"])
    names: set[str] = set()
    for command in commands:
        try:
            done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, check=False)
        except FileNotFoundError:
            return None
        if done.returncode:
            return None
        names.update(os.fsdecode(name) for name in done.stdout.split(b"\0") if name)
    found: list[str] = []
    for name in names:
        target = root / name
        if not os.path.lexists(target):
            continue
        if target.is_dir() and not target.is_symlink():  # a submodule, or another checkout inside
            inner = _git_files(target, include_untracked=include_untracked, include_ignored=include_ignored)
            found.extend(str(Path(name) / item) for item in (inner if inner is not None else _all_files(target)))
        else:
            found.append(name)
    return [name for name in found if Path(name).parts[0] not in _LEFT_OUT]


def _all_files(root: Path) -> list[str]:
    names: list[str] = []
    for directory, directories, files in os.walk(root):
        directories[:] = [name for name in directories if name not in _LEFT_OUT]
        base = Path(directory).relative_to(root)
        links = [name for name in directories if (Path(directory) / name).is_symlink()]
        empty = not files and not directories and str(base) != "."
        names.extend(str(base / name) for name in (*files, *links))
        if empty:
            names.append(str(base))
    return names
