"""Outcomes of failed requests: the row type of each backend's table of errors."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple


class Outcome(enum.Enum):
    """The effect of a failed request."""

    NOT_APPLIED = "not applied"
    UNKNOWN = "unknown"


class Row(NamedTuple):
    """One kind of error.

    Attributes:
        name: The kind, for people.
        matches: Tells whether an error is of this kind.
        outcome: The effect of the request.
        again: Whether retrying an idempotent request may succeed.
        source: The specification or documentation that says so.
    """

    name: str
    matches: Callable[[BaseException], bool]
    outcome: Outcome
    again: bool
    source: str
