"""Runs git on a checkout, whatever variables of git this process was started with.

In a hook git sets GIT_DIR and GIT_INDEX_FILE, which would name another repository than the directory's own; with
GIT_TRACE it writes lines to standard error that are no error. Nor does a look at a checkout run a command that its
configuration names: of a file system monitor, or of the remote that a partial clone gets missing objects from. And it
ends: git waits without end for a named pipe in place of a file that it reads (an included configuration, `.gitignore`).
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from agola_core.errors import BadRequestError

ANSWER_SECONDS = 30
"""How long git may take to answer a question, which takes it milliseconds."""

WORK_SECONDS = 600
"""How long git may take where it reads all files of a checkout, or all objects of a repository."""

_PLACES = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_IMPLICIT_WORK_TREE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_NAMESPACE"),
    *("GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE", "GIT_NO_REPLACE_OBJECTS"),
    *("GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"),
    *("GIT_EXTERNAL_DIFF", "GIT_DEFAULT_HASH", "GIT_DEFAULT_REF_FORMAT", "GIT_TEMPLATE_DIR", "GIT_CURL_VERBOSE"),
}


def run_git(directory: Path, *arguments: str, seconds: float | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run git in a directory, and return its exit code and what it wrote.

    Args:
        directory: The directory.
        arguments: Of git.
        seconds: How long it may take; by default `ANSWER_SECONDS`.

    Raises:
        FileNotFoundError: git is not installed.
        BadRequestError: It does not end in time. It and the processes that it started are killed.
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in _PLACES and not name.startswith("GIT_TRACE")
    }
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    environment |= {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "file"}  # the second for git before 2.39.4
    command = ["git", "-C", str(directory), "-c", "core.fsmonitor=false", *arguments]
    limit = ANSWER_SECONDS if seconds is None else seconds
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        process_group=0,  # the other half of a fetch may be the one that waits
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired as error:
            _kill(process)
            raise BadRequestError(
                f"git does not answer for {str(directory)!r}: `git {' '.join(arguments)}` took more than {limit:g} s. "
                f"A file that it reads (its configuration and what that includes, .gitignore) may be a named pipe, or "
                f"lie on a file system that does not answer"
            ) from error
        except BaseException:
            _kill(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
