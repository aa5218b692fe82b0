"""A log that grows, as rows for the script of its page. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agola_core.runservice.artifacts.line_index import split_lines
from agola_http.page.log.groups import GroupTracker, heading
from agola_http.page.log.log_rows import html, rows
from agola_http.page.log.terminal import Style


def growing(pieces: Iterable[bytes], skip: int = 0) -> Iterator[bytes]:
    """Yield the rows of a growing log as HTML, each on its line; a row whose line goes on is followed by a newer one.

    A group is a heading, and rows that tell that they belong to it.

    Args:
        pieces: The log, cut anywhere; empty pieces are passed on.
        skip: The number of rows that are left out, as the reader has them.
    """
    held, number, style, groups = b"", 1, Style(), GroupTracker()
    for piece in pieces:
        lines = list(split_lines(held + piece)) if piece else []
        if not lines:
            yield b""
            continue
        held = b"" if lines[-1].endswith(b"\n") else lines.pop()
        shown = []
        for line, row in zip(lines, rows(lines, number, style), strict=True):
            begins = groups.take(row.number, line)
            if row.number <= skip:
                continue
            if groups.group is not None and (begins or row.number == skip + 1):
                shown.append(f"{heading(groups.group, is_here=begins, is_open=True)}</details>")
            if not begins:
                shown.append(html(row, inside=groups.group is not None))
        number += len(lines)
        if held and number > skip:
            inside = groups.goes_on
            if inside and number == skip + 1 and groups.group is not None:
                shown.append(f"{heading(groups.group, is_here=False, is_open=True)}</details>")
            shown += [html(row, inside=inside) for row in rows([held], number, Style(style))]
        yield "".join(f"{row}\n" for row in shown).encode(errors="replace")
