"""Options of the plugin: from the command line, the environment or the ini file, in this order of precedence.

An invalid value, wherever it is given, is one usage error when pytest starts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

SERVERS = ("chromium", "container", "etcd", "s3")
"""Values of `--agola-require`, besides `all`."""

LOG_LEVELS = ("error", "info", "debug")
_HOST = r"(?:\[[0-9a-fA-F:.]+\]|[^\s/:@,?#\[\]]+):[0-9]{1,5}"
_HOSTS = re.compile(rf"{_HOST}(?:,{_HOST})*")


def _check_s3(text: str) -> None:
    parts = urlsplit(text)
    bucket = parts.path.strip("/")
    _ = parts.port  # a ValueError of its own
    if parts.scheme not in {"http", "https"} or not parts.hostname or "/" in bucket or parts.query or parts.fragment:
        raise ValueError("expected http://HOST:PORT or http://HOST:PORT/BUCKET")


def _check_etcd(text: str) -> None:
    if not _HOSTS.fullmatch(text):
        raise ValueError("expected HOST:PORT,HOST:PORT")


def _check_engine(text: str) -> None:
    if urlsplit(text).scheme not in {"unix", "tcp", "http", "https", "ssh"}:
        raise ValueError("expected unix:///PATH or tcp://HOST:PORT")


def _check_level(text: str) -> None:
    if text not in LOG_LEVELS:
        raise ValueError(f"expected {', '.join(LOG_LEVELS)}")


def _check_lines(text: str) -> None:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError("expected a number of lines")


def _check_require(text: str) -> None:
    for name in required_names(text) - {"all"}:
        if name not in SERVERS:
            raise ValueError(f"no server {name!r}; there are {', '.join(SERVERS)} and all")


def _check_nothing(_: str) -> None:
    pass


class _Option(NamedTuple):
    metavar: str
    default: str
    help: str
    check: Callable[[str], None]


_OPTIONS = {
    "s3": _Option("URL", "", "a running S3 server to use, http://HOST:PORT or http://HOST:PORT/BUCKET", _check_s3),
    "etcd": _Option("HOSTS", "", "a running etcd to use, HOST:PORT,HOST:PORT", _check_etcd),
    "container-engine": _Option("URL", "", "a running container engine to use, unix:///PATH", _check_engine),
    "container-image": _Option(
        "NAME", "busybox", "an image with /bin/sh that this engine has or finds", _check_nothing
    ),
    "require": _Option(
        "NAMES", "", "comma-separated servers (etcd, s3, ...; or all) whose absence fails tests", _check_require
    ),
    "log-level": _Option("LEVEL", "error", "how much services and servers log: error, info or debug", _check_level),
    "log-lines": _Option("N", "100", "lines of each server's log shown with a failed test", _check_lines),
    "keep": _Option("DIR", "", "where to copy the directories of failed tests that used a fixture", _check_nothing),
}


def add_options(parser: pytest.Parser) -> None:
    """Add the options to the command line and to the ini file."""
    group = parser.getgroup("agola", "fixtures of agola_core")
    for name, option in _OPTIONS.items():
        default = f" (default: {option.default})" if option.default else ""
        group.addoption(f"--agola-{name}", metavar=option.metavar, default=None, help=option.help + default)
        parser.addini(_ini(name), f"{option.help} (also {_variable(name)})", default="")


def check_options(config: pytest.Config) -> None:
    """Check the given values.

    Raises:
        pytest.UsageError: A value is invalid; tells which, and where it was given.
    """
    for name, option in _OPTIONS.items():
        text, place = _given(config, name)
        try:
            if place:
                option.check(text)
        except ValueError as error:
            raise pytest.UsageError(f"{place}: {text!r}: {error}") from error


def value(config: pytest.Config, name: str) -> str:
    """Return an option's value.

    Args:
        config: pytest's configuration.
        name: Name of the option, without `--agola-`.
    """
    return _given(config, name)[0]


def required_names(text: str) -> set[str]:
    """Return the servers in a value of `--agola-require`."""
    return {part.strip() for part in text.split(",") if part.strip()}


def _given(config: pytest.Config, name: str) -> tuple[str, str]:
    """Return a value and where it was given, which is "" for the default."""
    variable = _variable(name)
    places = (
        (config.getoption(f"--agola-{name}"), f"--agola-{name}"),
        (os.environ.get(variable), f"the environment variable {variable}"),
        (config.getini(_ini(name)), f"{_ini(name)} in the ini file"),
    )
    for text, place in places:
        if text:
            return str(text), place
    return _OPTIONS[name].default, ""


def _ini(name: str) -> str:
    return f"agola_{name.replace('-', '_')}"


def _variable(name: str) -> str:
    return _ini(name).upper()
