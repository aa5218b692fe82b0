"""A service named by its URL, for the commands that look after a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agola_core.errors import BadRequestError

if TYPE_CHECKING:
    from agola_http.client import Client

url_option = click.option("--url", envvar="AGOLA_URL", help="A running service, in the place of a data directory.")

token_file_option = click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    envvar="AGOLA_TOKEN_FILE",
    help="Holds the token that the service asks for; AGOLA_TOKEN may hold the token itself.",
)


@contextmanager
def connected(url: str, token_file: Path | None) -> Iterator[Client]:
    """Yield a client of a service.

    Raises:
        BadRequestError: The URL is none, or the extra http is missing.
    """
    try:
        from agola_http.client import Client  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise BadRequestError("--url needs the extra http: pip install 'agola-core[http]'") from error
    token = token_file.read_text().strip() if token_file else os.environ.get("AGOLA_TOKEN", "")
    with Client(url, token) as client:
        yield client
