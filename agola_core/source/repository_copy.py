"""A copy of a checkout's repository for its steps: HEAD, the branch, and the tags that it reaches, without secrets.

Neither configuration nor hooks, remotes, stashes or other branches go along: they may hold passwords, or run commands.
"""

from __future__ import annotations

import os
from pathlib import Path

from agola_core.errors import BadRequestError
from agola_core.source.git_command import WORK_SECONDS, run_git

MAX_BYTES = 64 * 1024**2
"""A repository whose objects are larger is copied without its older history; a partial clone without any."""

_DEPTH = 50
_REF = "refs/agola/head"
_SETTINGS = (
    *("pack.threads=1", "gc.auto=0", "maintenance.auto=false"),
    *("fetch.unpackLimit=1", "core.logAllRefUpdates=false"),
)
_QUIET = [part for setting in _SETTINGS for part in ("-c", setting)]
"""The same state gives the same files: one pack, no logs of references."""


def copy_repository(top: Path, target: Path) -> int:
    """Write a copy of a checkout's repository, as the `.git` of a directory; return when HEAD was committed.

    The index of the copy is HEAD's: what is changed or staged in the checkout is an uncommitted change there.

    Args:
        top: The checkout.
        target: The directory, which exists and is empty.

    Returns:
        Seconds since 1970; 0 where nothing is committed yet.

    Raises:
        BadRequestError: git cannot copy it.
    """
    top = top.absolute()  # git takes a relative one for a directory of the copy
    head = _ask(top, "rev-parse", "-q", "--verify", "HEAD^{commit}")
    branch = _ask(top, "symbolic-ref", "-q", "HEAD")
    object_format = _ask(top, "rev-parse", "--show-object-format") or "sha1"
    _do(target, "init", "-q", "--template=", f"--object-format={object_format}")
    if branch:
        _do(target, "symbolic-ref", "HEAD", branch)
    if not head:
        return 0
    is_shallow = _ask(top, "rev-parse", "--is-shallow-repository") == "true"
    depth = [] if not is_shallow and _size(top) <= MAX_BYTES else [f"--depth={_DEPTH}"]
    if _ask(top, "config", "--get-regexp", r"^(extensions\.partialclone|remote\..*\.promisor)$"):
        _check_complete(top)
        depth = ["--depth=1"]  # what was before HEAD may be missing
    _do(target, *_QUIET, "fetch", "-q", "--no-write-fetch-head", "--update-head-ok", *depth, str(top), f"+HEAD:{_REF}")
    _do(target, *_QUIET, "update-ref", *([branch] if branch else ["--no-deref", "HEAD"]), head)
    _do(target, *_QUIET, "update-ref", "-d", _REF)
    _do(target, "read-tree", "HEAD")
    return int(_ask(target, "show", "-s", "--format=%ct", "HEAD") or 0)


def _check_complete(top: Path) -> None:
    """Check that a partial clone has all of HEAD: one with a sparse checkout lacks what is not checked out."""
    found = _ask(top, "rev-list", "-1", "--objects", "--no-object-names", "--missing=print", "HEAD")
    missing = sum(line.startswith("?") for line in found.splitlines())
    if missing:
        raise BadRequestError(
            f"git cannot copy the repository for the clone step: the partial clone {top} lacks "
            f"{missing} object{'' if missing == 1 else 's'} of its last commit; `git sparse-checkout disable` gets them"
        )


def _size(top: Path) -> int:
    """Return about how many bytes a repository's objects have."""
    counts = dict(line.split(": ") for line in _ask(top, "count-objects", "-v").splitlines() if ": " in line)
    return 1024 * sum(int(counts.get(name, 0)) for name in ("size", "size-pack"))


def _ask(directory: Path, *arguments: str) -> str:
    done = run_git(directory, *arguments, seconds=WORK_SECONDS)
    return "" if done.returncode else os.fsdecode(done.stdout).strip()


def _do(directory: Path, *arguments: str) -> None:
    done = run_git(directory, *arguments, seconds=WORK_SECONDS)
    if done.returncode:
        reason = os.fsdecode(done.stderr).strip().removeprefix("fatal: ")
        raise BadRequestError(f"git cannot copy the repository for the clone step: {reason}")
