"""A line of a log as a service sends it with its time, which is shown in the user's own zone."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from agola_core.runservice.model.line_times import TIME_WIDTH

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z|-) +")
UNKNOWN = "-"


class TimedLine(NamedTuple):
    """A line without its time, and its time; None when it is not known."""

    text: str
    time: datetime | None


def timed_line(line: str) -> TimedLine:
    """Return a line that begins with its time; one of an older service does not."""
    found = _TIME.match(line) if len(line) > TIME_WIDTH and line[TIME_WIDTH] == " " else None
    if found is None:
        return TimedLine(line, None)
    return TimedLine(line[TIME_WIDTH + 1 :], _parsed(found[1]))


@lru_cache(maxsize=1024)
def shown_time(time: datetime | None) -> str:
    """Return a time as it is shown before a line."""
    if time is None:
        return UNKNOWN
    with suppress(ValueError, OverflowError):  # by an executor's clock it is the end of all time, and here beyond
        time = time.astimezone()
    return time.isoformat(timespec="milliseconds")


@lru_cache(maxsize=1024)
def _parsed(text: str) -> datetime | None:
    return None if text == UNKNOWN else datetime.fromisoformat(text)
