"""Runs git on a checkout, whatever variables of git this process was started with.

In a hook git sets GIT_DIR and GIT_INDEX_FILE, which would name another repository than the directory's own; with
GIT_TRACE it writes lines to standard error that are no error. Nor does a look at a checkout run a command that its
configuration names: of a file system monitor, or of the remote that a partial clone gets missing objects from.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_PLACES = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_IMPLICIT_WORK_TREE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_NAMESPACE"),
    *("GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE", "GIT_NO_REPLACE_OBJECTS"),
    *("GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"),
    *("GIT_EXTERNAL_DIFF", "GIT_DEFAULT_HASH", "GIT_DEFAULT_REF_FORMAT", "GIT_TEMPLATE_DIR", "GIT_CURL_VERBOSE"),
}


def run_git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in a directory, and return its exit code and what it wrote.

    Args:
        directory: The directory.
        arguments: Of git.

    Raises:
        FileNotFoundError: git is not installed.
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in _PLACES and not name.startswith("GIT_TRACE")
    }
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    environment |= {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "file"}  # the second for git before 2.39.4
    command = ["git", "-C", str(directory), "-c", "core.fsmonitor=false", *arguments]
    return subprocess.run(command, capture_output=True, check=False, env=environment)
