"""Expands `~` and variables in configured working directories, as a shell would. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from agola_core.errors import BadRequestError

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
