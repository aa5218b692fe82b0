"""Servers that tests need: a missing one skips with the reason, or fails where it was required."""

from __future__ import annotations

from typing import NoReturn

import pytest

from agola_pytest.options import required_names, value


def missing(config: pytest.Config, name: str, reason: str) -> NoReturn:
    """Skip the running test because a server is missing, or fail it where the server was required.

    Args:
        config: pytest's.
        name: The server, as `--agola-require` names it.
        reason: Why it is missing, and how to get it.
    """
    if {name, "all"} & required_names(value(config, "require")):
        pytest.fail(f"{name} was required, and {reason}", pytrace=False)
    pytest.skip(reason)
