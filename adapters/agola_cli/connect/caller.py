"""Who runs a command."""

from __future__ import annotations

import getpass
import socket

from agola_cli.output.records import printable

_MAX_NAME = 100


def login_name() -> str:
    """Return the name of the user who runs this process; "" for one who has none, as in some containers."""
    try:
        return printable(getpass.getuser().strip().partition("\n")[0][:_MAX_NAME])
    except (KeyError, OSError):
        return ""


def caller() -> str:
    """Return who runs this process, and on which machine."""
    return f"{login_name() or 'somebody'}@{socket.gethostname()}"
