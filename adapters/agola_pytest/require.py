"""Servers that tests need: a missing one skips with the reason, or fails where it was required."""

from __future__ import annotations

import importlib.util
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


def need_extra(config: pytest.Config, name: str, extra: str, *modules: str) -> None:
    """Skip the running test because an extra is not installed, or fail it where its server was required.

    Args:
        config: pytest's.
        name: The server, as `--agola-require` names it.
        extra: The extra of agola-core.
        modules: What it brings.
    """
    absent = [module for module in modules if not _is_installed(module)]
    if absent:
        missing(config, name, f"there is no module {absent[0]}: pip install 'agola-core[{extra}]'")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a module that was made unavailable
        return False
