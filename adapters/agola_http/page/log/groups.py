"""A window of a log as HTML: rows, and groups of rows that fold without script. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import accumulate

from agola_core.runservice.logs.line_marks import ends_group, group_name
from agola_core.runservice.logs.log_view import Group, Piece
from agola_http.page.log.line_time import Stamps, time_html
from agola_http.page.log.log_rows import Row, html, rows
from agola_http.page.log.terminal import Style, spans

_NAME_BYTES, _NAME_CHARACTERS = 2000, 300


def window_html(pieces: Iterable[Piece], address: str, stamps: Stamps | None = None) -> Iterator[str]:
    """Yield the pieces of a window as HTML.

    Args:
        pieces: The pieces.
        address: That of the log, to which a line's number can be added.
        stamps: When the lines were written, where that is shown.
    """
    style = Style()
    for piece in pieces:
        shown = list(rows(piece.lines, piece.first + 1, style))
        ends = accumulate(map(len, piece.lines), initial=piece.begin)
        times = [time_html(stamps, end) for end in ends][1:] or [time_html(stamps, piece.begin + 1)]
        if piece.group is None:
            yield from (html(row, time=time) for row, time in zip(shown, times, strict=False))
        else:
            yield _group_html(piece.group, piece, shown, times, address)


def heading(group: Group, *, is_here: bool, is_open: bool, more: str = "", time: str = "") -> str:
    """Return the beginning of a group, without its end.

    Args:
        group: The group; its end may not be known yet: 0.
        is_here: Whether the line that begins it is shown, so that its address leads here.
        is_open: Whether its lines are seen.
        more: What follows its name, as HTML.
        time: When the line that begins it was written, as HTML.
    """
    number = group.first + 1
    name = "".join(span.text for span in spans(group.name[:_NAME_BYTES].decode(errors="replace"), Style()))
    short = name if len(name) <= _NAME_CHARACTERS else f"{name[:_NAME_CHARACTERS]}…"
    own = f' id="L{number}"' if is_here else ""
    end = f' data-end="{group.end}"' if group.end else ""
    lines = f"<small>{number} to {group.end}</small>" if group.end else ""
    return (
        f'<details id="G{number}" class="group"{end}{" open" if is_open else ""}><summary{own}>'
        f'<a href="#L{number}" tabindex="-1">{number}</a>{time}<span>{escape(short) or "(no name)"}</span>'
        f"{lines}{more}</summary>"
    )


def _group_html(group: Group, piece: Piece, shown: list[Row], times: list[str], address: str) -> str:
    is_here = piece.first == group.first
    if not piece.lines:
        more = ""
        if piece.error is not None:
            line = piece.error + 1
            more = f'<a class="bad" href="{escape(address)}&amp;at={line}#L{line}">line {line} looks like an error</a>'
        second = group.first + 2
        rest = f'<a class="rest" href="{escape(address)}&amp;from={second}">Show its lines</a>'
        return f"{heading(group, is_here=True, is_open=False, more=more, time=times[0])}{rest}</details>"
    inner = list(zip(shown, times, strict=True))[1 if is_here else 0 :]
    is_open = not is_here or not group.has_ended or any(row.kind == "bad" for row, _ in inner)
    top = heading(group, is_here=is_here, is_open=is_open, time=times[0] if is_here else "")
    return f"{top}{''.join(html(row, time=time) for row, time in inner)}</details>"


class GroupTracker:
    """Tells the groups of a log that passes by, line by line."""

    def __init__(self) -> None:
        self.group: Group | None = None
        self._is_cut = False
        self._ends = False

    @property
    def goes_on(self) -> bool:
        """Whether the next line is in the group, unless it begins another one."""
        return self.group is not None and not self._ends

    def take(self, number: int, line: bytes) -> bool:
        """Take the next line; return whether it begins a group.

        Args:
            number: Its number, from 1.
            line: The line.
        """
        if self._ends:
            self.group, self._ends = None, False
        name = None if self._is_cut else group_name(line)
        if name is not None:
            self.group = Group(number - 1, 0, False, name)
        else:
            self._ends = not self._is_cut and ends_group(line)
        self._is_cut = not line.endswith(b"\n")
        return name is not None
