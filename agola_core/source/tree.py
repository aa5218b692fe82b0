"""Source archives: a directory as git sees it, packed as a tar for the `clone` step of a run.

In a git checkout that is what is tracked or untracked, as it lies there; ignored files and `.git` are left out. When
git does not answer for a checkout nothing is packed, since ignored files often hold secrets. Elsewhere, and in a
directory that the checkout around it ignores, it is everything. Files keep their times and modes, links stay links; the
same tree gives the same bytes: sorted, without owners.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import TYPE_CHECKING

from agola_core.encoding.compression import compress
from agola_core.errors import BadRequestError
from agola_core.source.git_command import WORK_SECONDS, run_git
from agola_core.source.repository_copy import copy_repository

if TYPE_CHECKING:
    import tarfile

_CHUNK = 1 << 20
_FILE = b"0"  # the type of a file in a tar
_LEFT_OUT = frozenset((".git", ".agola-data"))


def pack_tree(
    path: str | os.PathLike[str],
    *,
    include_untracked: bool = True,
    include_ignored: bool = False,
    left_out: str | os.PathLike[str] | None = None,
    include_repository: bool = False,
) -> Iterator[bytes]:
    """Yield a directory as a zstd-compressed tar, in pieces.

    Args:
        path: The directory.
        include_untracked: Whether files that git does not track are packed.
        include_ignored: Whether files that git is told to ignore are packed.
        left_out: A directory that is not packed: the data of the service itself, with its secrets.
        include_repository: Whether the top of a checkout gets a copy of its repository (see `repository_copy`).

    Raises:
        BadRequestError: It is not a directory, cannot be read, or is a git checkout that git does not answer for.
    """
    root = Path(path)
    names, from_git = _list(root, include_untracked=include_untracked, include_ignored=include_ignored)
    if left_out is not None:
        own = os.path.relpath(Path(left_out).resolve(), root.resolve())
        names = [name for name in names if name != own and not name.startswith(f"{own}/")]
    with_repository = include_repository and from_git and _top_of(root) == root.resolve()
    return _packed(root, _with_parents(names), with_repository=with_repository)


def list_tree(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the files that `pack_tree` would pack of a directory, in no order.

    Raises:
        BadRequestError: As `pack_tree` does.
    """
    return _list(Path(path), include_untracked=True, include_ignored=False)[0]


def _list(root: Path, *, include_untracked: bool, include_ignored: bool) -> tuple[list[str], bool]:
    """Return the names of a directory's files, and whether git said them."""
    if not root.is_dir():
        raise BadRequestError(f"{str(root)!r} is not a directory")
    if is_checkout(root) and not _is_ignored(root):
        return _git_files(root, include_untracked=include_untracked, include_ignored=include_ignored), True
    return _all_files(root), False


def is_checkout(path: Path) -> bool:
    """Return whether a directory is in a git checkout.

    Args:
        path: The directory.

    Raises:
        BadRequestError: It is, but git does not answer for it: what is ignored there cannot be told, so nothing of
            it may be packed.
    """
    top = _top_of(path)
    if top is None:
        return False
    try:
        done = run_git(path, "rev-parse", "--show-toplevel")
    except FileNotFoundError as error:
        raise BadRequestError(
            f"{str(top)!r} is a git checkout and git is not installed: what it ignores cannot be told; install git"
        ) from error
    reason = ""
    if done.returncode:
        reason = os.fsdecode(done.stderr).strip().removeprefix("fatal: ") or f"it ended with {done.returncode}"
    if "must be run in a work tree" in reason:  # inside of .git
        return False
    if not done.returncode and Path(os.fsdecode(done.stdout.rstrip(b"\n"))).resolve() != top:
        reason = "its .git is damaged"  # git goes on to look above it
    if reason:
        raise BadRequestError(f"{str(top)!r} is a git checkout that git does not answer for: {reason}")
    return True


def _top_of(path: Path) -> Path | None:
    """Return the nearest directory at or above a path with a `.git`, found as git finds it."""
    path = path.resolve()
    device = path.stat().st_dev
    ceilings = os.environ.get("GIT_CEILING_DIRECTORIES", "").split(os.pathsep)
    for directory in (path, *path.parents):
        if directory.stat().st_dev != device or (directory != path and str(directory) in ceilings):
            return None
        if os.path.lexists(directory / ".git"):
            return directory
    return None


def _with_parents(names: Iterable[str]) -> list[str]:
    """Return names with the directories that they lie in, in order: directories have times and modes, too."""
    found = set(names)
    for name in names:
        while (name := name.rpartition("/")[0]) and name not in found:
            found.add(name)
    return sorted(found)


def _packed(root: Path, names: list[str], *, with_repository: bool) -> Iterator[bytes]:
    import tarfile  # noqa: PLC0415 - few use it

    buffer = io.BytesIO()
    with (
        tempfile.TemporaryDirectory(prefix="agola-source-") as temporary,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        copied: list[str] = []
        committed = 0
        if with_repository:
            committed = copy_repository(root, Path(temporary))
            copied = _with_parents(_all_files(Path(temporary), left_out=frozenset()))
        for base, name in (*((root, name) for name in names), *((Path(temporary), name) for name in copied)):
            try:
                _add(archive, base / name, name, None if base is root else committed)
            except FileNotFoundError:  # deleted since it was listed
                continue
            except OSError as error:
                raise BadRequestError(f"cannot pack {name!r}: {error}") from error
            if buffer.tell() >= _CHUNK:
                yield compress(buffer.getvalue(), 1)
                buffer.seek(0)
                buffer.truncate()
    yield compress(buffer.getvalue(), 1)


def _add(archive: tarfile.TarFile, path: Path, name: str, mtime: int | None) -> None:
    """Add a file, a link or a directory, with its own time or another one; leave sockets and devices out."""
    info = archive.gettarinfo(str(path), arcname=name)
    if info is None or not (info.isreg() or info.issym() or info.isdir() or info.islnk()):
        return
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode &= 0o777
    if mtime is not None:
        info.mtime = mtime
    if info.islnk():  # a second name of a file: packed as a file of its own
        info.type, info.size = _FILE, path.lstat().st_size
    if info.isreg():
        with path.open("rb") as file:
            archive.addfile(info, file)
    else:
        archive.addfile(info)


def _is_ignored(root: Path) -> bool:
    """Return whether the checkout around a directory ignores it: then git does not know its content."""
    return run_git(root, "check-ignore", "-q", ".").returncode == 0


def _git_files(root: Path, *, include_untracked: bool, include_ignored: bool) -> list[str]:
    """Return the files of a git checkout.

    Raises:
        BadRequestError: git does not list them.
    """
    commands = [["ls-files", "-z", "--cached"]]
    if include_untracked:
        commands.append(["ls-files", "-z", "--others", "--exclude-standard"])
    if include_ignored:
        commands.append(["ls-files", "-z", "--others", "--ignored", "--exclude-standard"])
    names: set[str] = set()
    for command in commands:
        done = run_git(root, *command, seconds=WORK_SECONDS)
        if done.returncode:
            reason = os.fsdecode(done.stderr).strip().removeprefix("fatal: ")
            raise BadRequestError(f"git cannot list the files of {str(root)!r}: {reason}")
        names.update(os.fsdecode(name) for name in done.stdout.split(b"\0") if name)
    found: list[str] = []
    for name in names:
        target = root / name
        if not os.path.lexists(target):
            continue
        if target.is_dir() and not target.is_symlink():  # a submodule, or another checkout inside
            inner = (
                _git_files(target, include_untracked=include_untracked, include_ignored=include_ignored)
                if os.path.lexists(target / ".git") and is_checkout(target)
                else _all_files(target)
            )
            found.extend(str(Path(name) / item) for item in inner or ["."])
        else:
            found.append(name)
    return [name for name in found if _LEFT_OUT.isdisjoint(Path(name).parts)]


def _all_files(root: Path, left_out: Set[str] = _LEFT_OUT) -> list[str]:
    names: list[str] = []
    for directory, directories, files in os.walk(root):
        directories[:] = [name for name in directories if name not in left_out]
        base = Path(directory).relative_to(root)
        links = [name for name in directories if (Path(directory) / name).is_symlink()]
        empty = not files and not directories and str(base) != "."
        names.extend(str(base / name) for name in (*files, *links))
        if empty:
            names.append(str(base))
    return names
