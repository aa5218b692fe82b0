"""Expands `~` and variables in configured working directories, as a shell would. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from agola_core.errors import BadRequestError

_DEFAULT = "~/project"
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)


def expand_path(path: str, variables: Mapping[str, str]) -> str:
    """Expand a configured path to an absolute one.

    Args:
        path: May begin with `~` and contain `$NAME` or `${NAME}`; a relative one is below `HOME`.
        variables: Includes `HOME`; missing ones are empty.

    Raises:
        BadRequestError: It is not a valid path.

    Example:
        >>> expand_path("~/project/$NAME", {"HOME": "/root", "NAME": "x"})
        '/root/project/x'
    """
    home = variables.get("HOME") or "/"
    expanded = _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], ""), path)
    if expanded == "~" or expanded.startswith("~/"):
        expanded = home + expanded[1:]
    if "\0" in expanded:
        raise BadRequestError(f"malformed path {path!r}")
    return posixpath.normpath(posixpath.join(home, expanded))


def working_directory(configured: str, variables: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """Return the absolute working directory of a step.

    Args:
        configured: As for `expand_path`; "" for `~/project`.
        variables: The user's own in the pod; its `HOME` counts, whatever the environment says.
        environment: The task's and the step's.

    Raises:
        BadRequestError: It is not a valid path.
    """
    return expand_path(configured or _DEFAULT, {**variables, **environment, "HOME": variables["HOME"]})
