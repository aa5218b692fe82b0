"""When a line was written, as a row of the page tells it. Pure."""

from __future__ import annotations

from collections.abc import Callable

from agola_core.runservice.model.line_times import shown

Stamps = Callable[[int], int | None]
"""Returns when the byte before a place of the log was written, in milliseconds since 1970; None if it is not known."""


def time_html(stamps: Stamps | None, end: int) -> str:
    """Return the time of a line as HTML: the hour in UTC, which the script completes; "" where no times are asked for.

    Args:
        stamps: The times; None where they are not asked for.
        end: Where the line ends, in bytes.
    """
    if stamps is None:
        return ""
    stamp = stamps(end)
    if stamp is None:
        return "<small>-</small>"
    moment = shown(stamp).decode().strip()
    return f'<time datetime="{moment}">{moment[11:23]}</time>'
