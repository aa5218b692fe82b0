"""Servers that tests need: a missing one skips with the reason, or fails where it was required."""

from __future__ import annotations

from typing import NoReturn

import pytest


def add_option(parser: pytest.Parser) -> None:
    """Add `--agola-require`."""
    help_text = "comma-separated servers (etcd, s3, ...; or all) whose absence fails tests instead of skipping them"
    parser.getgroup("agola").addoption("--agola-require", metavar="NAMES", default=None, help=help_text)
    parser.addini("agola_require", f"{help_text} (also the environment variable AGOLA_REQUIRE)", default="")


def missing(config: pytest.Config, name: str, reason: str) -> NoReturn:
    """Skip the running test because a server is missing, or fail it where the server was required.

    Args:
        config: pytest's.
        name: The server, as `--agola-require` names it.
        reason: Why it is missing, and how to get it.
    """
    import os  # noqa: PLC0415 - unused, the plugin costs nothing

    required = config.getoption("--agola-require") or os.environ.get("AGOLA_REQUIRE") or config.getini("agola_require")
    if {name, "all"} & {part.strip() for part in str(required).split(",")}:
        pytest.fail(f"{name} was required, and {reason}", pytrace=False)
    pytest.skip(reason)
