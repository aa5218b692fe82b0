"""Findings: warnings and other remarks about a configuration that is accepted."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec


class FindingKind(StrEnum):
    """The kind of a finding.

    Attributes:
        WARNING: Something is ignored or not read as written, here as in Agola 0.2.
        EXTENSION: It has a meaning here, and Agola 0.2 ignores it.
        REFUSED: It has a meaning here, and Agola 0.2 refuses the file because of it.
        DIFFERENT: It has another meaning in Agola 0.2.
        OWN_ERROR: It is an error here, but not in Agola 0.2.
    """

    WARNING = "warning"
    EXTENSION = "extension"
    REFUSED = "refused"
    DIFFERENT = "different"
    OWN_ERROR = "own_error"


class Finding(msgspec.Struct, frozen=True):
    """A remark about a place in a configuration.

    Attributes:
        kind: Its kind.
        message: For warnings, what was found; for others, what Agola 0.2 does with it.
        source: The file, as the user named it.
        line: The line, from 1; None if lines mean nothing.
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
"""Called with each finding."""
