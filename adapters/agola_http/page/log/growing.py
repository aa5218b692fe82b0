"""A log that grows, as rows for the script of its page. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agola_core.runservice.logs.line_index import split_lines
from agola_core.runservice.model.line_times import GrowingTimes
from agola_http.page.log.groups import GroupTracker, heading
from agola_http.page.log.line_time import time_html
from agola_http.page.log.log_rows import html, rows
from agola_http.page.log.terminal import Style


def growing(pieces: Iterable[bytes], skip: int = 0, times: GrowingTimes | None = None) -> Iterator[bytes]:
    """Yield the rows of a growing log as HTML, each on its line; a row whose line goes on is followed by a newer one.

    A group is a heading, and rows that tell that they belong to it.

    Args:
        pieces: The log, cut anywhere; empty pieces are passed on.
        skip: The number of rows that are left out, as the reader has them.
        times: When the lines were written, where that is shown.
    """
    held, number, style, groups = b"", 1, Style(), GroupTracker()
    end, stamps = 0, times.at if times else None
    for piece in pieces:
        lines = list(split_lines(held + piece)) if piece else []
        if not lines:
            yield b""
            continue
        if times is not None:
            times.reach(end + len(held) + len(piece))
        held = b"" if lines[-1].endswith(b"\n") else lines.pop()
        shown = []
        for line, row in zip(lines, rows(lines, number, style), strict=True):
            begins, end = groups.take(row.number, line), end + len(line)
            if row.number <= skip:
                continue
            time = time_html(stamps, end)
            if groups.group is not None and (begins or row.number == skip + 1):
                top = heading(groups.group, is_here=begins, is_open=True, time=time if begins else "")
                shown.append(f"{top}</details>")
            if not begins:
                shown.append(html(row, time=time, inside=groups.group is not None))
        number += len(lines)
        if held and number > skip:
            inside = groups.goes_on
            if inside and number == skip + 1 and groups.group is not None:
                shown.append(f"{heading(groups.group, is_here=False, is_open=True)}</details>")
            time = time_html(stamps, end + len(held))
            shown += [html(row, time=time, inside=inside) for row in rows([held], number, Style(style))]
        yield "".join(f"{row}\n" for row in shown).encode(errors="replace")
