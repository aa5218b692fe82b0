"""Findings: warnings and other remarks about a configuration that is accepted."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec


class FindingKind(StrEnum):
    """What a finding is about.

    Attributes:
        WARNING: Something is ignored, or is not read as it is written: here as in Agola 0.2.
        EXTENSION: It means something here, and Agola 0.2 ignores it.
        REFUSED: It means something here, and Agola 0.2 refuses the file for it.
        DIFFERENT: It means something here, and something else in Agola 0.2.
        OWN_ERROR: It is an error here, and none in Agola 0.2.
    """

    WARNING = "warning"
    EXTENSION = "extension"
    REFUSED = "refused"
    DIFFERENT = "different"
    OWN_ERROR = "own_error"


class Finding(msgspec.Struct, frozen=True):
    """Something found in a configuration.

    Attributes:
        kind: What it is about.
        message: What was found; for all but warnings, what Agola 0.2 does with it.
        source: The file, as the user named it.
        line: From 1; None where lines mean nothing.
        place: Such as `runs[0].tasks[2]`.
    """

    kind: FindingKind
    message: str
    source: str = ""
    line: int | None = None
    place: str = ""

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.source and self.line is not None else self.source
        return ": ".join(part for part in (where, self.place, self.message) if part)


Report = Callable[[Finding], object]
"""Takes what is found."""
