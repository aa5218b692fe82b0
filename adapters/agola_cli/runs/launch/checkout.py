"""Asks git for the branch, tag and commit of the directory that is run."""

from __future__ import annotations

from pathlib import Path

import msgspec

from agola_cli.output.records import printable
from agola_core.errors import BadRequestError
from agola_core.source.git_command import run_git
from agola_core.source.tree import is_checkout

_SHOWN_CHARACTERS = 200


class Checkout(msgspec.Struct, frozen=True):
    """A directory's branch, tag, reference and commit with its message's first line; empty outside of git."""

    branch: str = ""
    tag: str = ""
    ref: str = ""
    commit: str = ""
    message: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tasks get, by Agola's names."""
        named = {
            "AGOLA_GIT_BRANCH": self.branch,
            "AGOLA_GIT_TAG": self.tag,
            "AGOLA_GIT_REF": self.ref,
            "AGOLA_GIT_COMMITSHA": self.commit,
        }
        return {name: value for name, value in named.items() if value}

    @property
    def jsonnet_context(self) -> dict[str, str]:
        """What a jsonnet configuration that is a function gets, by Agola's names."""
        kind = "tag" if self.tag else "branch" if self.branch else ""
        named = {"ref_type": kind, "ref": self.ref, "branch": self.branch, "tag": self.tag, "commit_sha": self.commit}
        return {name: value for name, value in named.items() if value}

    @property
    def annotations(self) -> dict[str, str]:
        """What a run says of where it comes from, by Agola's names."""
        named = {
            "branch": self.branch,
            "tag": self.tag,
            "ref": self.ref,
            "commit_sha": self.commit,
            "message": self.message,
        }
        return {name: value for name, value in named.items() if value}


def describe_checkout(path: Path) -> Checkout:
    """Return what git says of a directory; outside of git it counts as branch `master`, as Agola's direct runs.

    Raises:
        BadRequestError: It is in a checkout that git does not answer for.
    """
    if not is_checkout(path):
        return Checkout(branch="master", ref="refs/heads/master")
    branch = _git(path, "symbolic-ref", "--short", "-q", "HEAD")
    commit = _git(path, "rev-parse", "-q", "--verify", "HEAD")
    if not branch and not commit:
        return Checkout(branch="master", ref="refs/heads/master")
    tag = _git(path, "describe", "--tags", "--exact-match") if not branch else ""
    ref = f"refs/heads/{branch}" if branch else f"refs/tags/{tag}" if tag else "HEAD"
    return Checkout(branch, tag, ref, commit, _message(path) if commit else "")


def checkout_as(path: Path, branch: str | None, tag: str | None, ref: str | None) -> Checkout | None:
    """Return a directory's checkout as if it were on another branch, tag or reference; None to ask git alone.

    Raises:
        BadRequestError: More than one of them is given.
    """
    given = [name for name, value in (("branch", branch), ("tag", tag), ("ref", ref)) if value]
    if len(given) > 1:
        raise BadRequestError(f"give one of branch, tag and ref, not {' and '.join(given)}")
    if not given:
        return None
    reference = ref or (f"refs/heads/{branch}" if branch else f"refs/tags/{tag}")
    directory = path if path.is_dir() else path.resolve().parent
    found = describe_checkout(directory)
    return Checkout(branch or "", tag or "", reference, found.commit, found.message)


def _message(path: Path) -> str:
    form = ("--no-show-signature", "--no-color", "--encoding=UTF-8", "--format=%B")
    done = run_git(path, "log", "-1", *form, "HEAD", "--")
    return _line(done.stdout.decode(errors="replace")) if done.returncode == 0 else ""


def _line(text: str) -> str:
    """Return the first line of a text that somebody else wrote, cut, and without what is no character to print."""
    line = text.strip().partition("\n")[0].rstrip().replace("\t", " ")
    cut = line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 1]}…"
    return printable(cut)


def _git(path: Path, *arguments: str) -> str:
    try:
        done = run_git(path, *arguments)
    except FileNotFoundError:
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""  # a run's texts are UTF-8
