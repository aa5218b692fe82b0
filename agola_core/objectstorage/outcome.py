"""What a failed request to a storage has done: the vocabulary of the backends' tables of answers."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple


class Outcome(enum.Enum):
    """What a failed request has done."""

    NOT_APPLIED = "not applied"
    UNKNOWN = "unknown"


class Row(NamedTuple):
    """One kind of answer.

    Attributes:
        name: Of the kind, for people.
        matches: Whether an error is of it.
        outcome: What the request has done.
        again: Whether an idempotent request may succeed when it is sent again.
        source: Who says so.
    """

    name: str
    matches: Callable[[BaseException], bool]
    outcome: Outcome
    again: bool
    source: str
