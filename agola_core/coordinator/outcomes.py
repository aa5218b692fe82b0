"""Outcomes of a failed transaction; each backend's `errors` module maps its errors to them."""

from __future__ import annotations

import enum


class Outcome(enum.StrEnum):
    """Outcome of a transaction as far as its error tells; an unknown one is read back before the caller is told."""

    NOT_APPLIED = "not applied"
    APPLIED = "applied"
    UNKNOWN = "unknown"
