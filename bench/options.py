"""Options of benches: variables of `make bench`, which come as environment variables."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from agola_core.encoding.numerals import whole_number


def number(name: str, default: int, least: int) -> int:
    """Return a whole number that an option gives; end the process with one message when it is none, or too small."""
    text = os.environ.get(name) or str(default)
    found = whole_number(text)
    if found is None or found < least:
        _refuse(f"{name}={text}: expected a whole number of at least {least:,}")
    return found


def choice(name: str, choices: Sequence[str]) -> str:
    """Return one of some words that an option gives, by default the first; end the process with one message if none."""
    text = os.environ.get(name) or choices[0]
    if text not in choices:
        _refuse(f"{name}={text}: expected one of {', '.join(choices)}")
    return text


def _refuse(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(2)
