"""What became of a transaction that ended in an error; each backend has a table of its errors beside its code."""

from __future__ import annotations

import enum


class Outcome(enum.StrEnum):
    """What is known of a transaction from its error alone. One that is unknown is read before its caller hears."""

    NOT_APPLIED = "not applied"
    APPLIED = "applied"
    UNKNOWN = "unknown"
