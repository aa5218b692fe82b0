"""Says which known name somebody may have meant by an unknown one."""

from __future__ import annotations

from collections.abc import Iterable

_LEAST = 3  # characters of a name that others are taken for by their beginning


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'list'?", or "" when no known name is close.

    Args:
        name: The unknown name; its case does not matter.
        known: The names that there are, in lower case or not.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - few use it

    folded = {item.lower(): item for item in sorted(known, reverse=True)}  # of equal ones the first
    wanted = name[:100].lower()  # comparing takes as long as it is long
    begins = [item for item in folded if len(item) >= _LEAST and wanted.startswith(item)]
    close = begins or get_close_matches(wanted, folded, 1)
    return f"; did you mean {folded[max(close, key=len)]!r}?" if close else ""
