"""Source archives: a directory as git sees it, packed as a tar for the `clone` step of a run.

In a git checkout that is what is tracked or untracked, as it lies there; ignored files and `.git` are left out. When
git does not answer for a checkout nothing is packed, since ignored files often hold secrets. Elsewhere, and in a
directory that the checkout around it ignores, it is everything. The same tree gives the same bytes: sorted, without
times or owners.
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
    path: str | os.PathLike[str],
    *,
    include_untracked: bool = True,
    include_ignored: bool = False,
    left_out: str | os.PathLike[str] | None = None,
) -> Iterator[bytes]:
    """Yield a directory as a zstd-compressed tar, in pieces.

    Args:
        path: The directory.
        include_untracked: Whether files that git does not track are packed.
        include_ignored: Whether files that git is told to ignore are packed.
        left_out: A directory of which nothing is packed: the data of the service itself, with its secrets.

    Raises:
        BadRequestError: It is not a directory, cannot be read, or is a git checkout that git does not answer for.
    """
    root = Path(path)
    if not root.is_dir():
        raise BadRequestError(f"{str(root)!r} is not a directory")
    if not is_checkout(root) or _is_ignored(root):
        names = _all_files(root)
    else:
        names = _git_files(root, include_untracked=include_untracked, include_ignored=include_ignored)
    if left_out is not None:
        own = os.path.relpath(Path(left_out).resolve(), root.resolve())
        names = [name for name in names if name != own and not name.startswith(f"{own}/")]
    return _packed(root, sorted(names))


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
        done = _git(path, "rev-parse", "--show-toplevel")
    except FileNotFoundError as error:
        raise BadRequestError(
            f"{str(top)!r} is a git checkout and git is not installed: what it ignores cannot be told; install git"
        ) from error
    reason = os.fsdecode(done.stderr).strip().removeprefix("fatal: ")
    if done.returncode and "must be run in a work tree" in reason:  # inside of .git
        return False
    if not done.returncode and Path(os.fsdecode(done.stdout.rstrip(b"\n"))).resolve() != top:
        reason = "its .git is damaged"  # git goes on to look above it
    if reason:
        raise BadRequestError(f"{str(top)!r} is a git checkout that git does not answer for: {reason}")
    return True


def _top_of(path: Path) -> Path | None:
    """Return the directory at or above a path that has a `.git`, on the same file system, as git looks for it."""
    path = path.resolve()
    device = path.stat().st_dev
    ceilings = os.environ.get("GIT_CEILING_DIRECTORIES", "").split(os.pathsep)
    for directory in (path, *path.parents):
        if directory.stat().st_dev != device or (directory != path and str(directory) in ceilings):
            return None
        if os.path.lexists(directory / ".git"):
            return directory
    return None


def _git(path: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    return subprocess.run(["git", "-C", str(path), *arguments], capture_output=True, check=False, env=environment)


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
    return _git(root, "check-ignore", "-q", ".").returncode == 0


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
        done = _git(root, *command)
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
            found.extend(str(Path(name) / item) for item in inner)
        else:
            found.append(name)
    return [name for name in found if _LEFT_OUT.isdisjoint(Path(name).parts)]


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
