"""Connects to a running service by its URL."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agola_cli.connect.local_services import find_token
from agola_cli.options.common import read_token
from agola_core.errors import BadRequestError

if TYPE_CHECKING:
    from agola_http.client import Client


_PROBE_SECONDS = 2.0


def why_unreachable(url: str) -> str | None:
    """Return why nothing can be connected to at a URL; None when something can."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), _PROBE_SECONDS).close()
    except ValueError:  # what uses the URL says so
        return None
    except OSError as error:
        return error.strerror or str(error)
    return None


def connected(url: str, token_file: Path | None) -> Client:
    """Return a client of a service, a context manager; services of the same user need no token to be named.

    Raises:
        BadRequestError: The URL is malformed, or the extra http is missing.
    """
    try:
        from agola_http.client import Client  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise BadRequestError("--url needs the extra http: pip install 'agola-core[http]'") from error
    token = read_token(token_file)
    if not token:
        url, token = find_token(url, "admin")
    return Client(url, token)
