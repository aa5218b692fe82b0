"""Connects to a running service by its URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agola_cli.connect.local_services import find_token
from agola_cli.options.common import read_token
from agola_core.errors import BadRequestError

if TYPE_CHECKING:
    from agola_http.client import Client


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
