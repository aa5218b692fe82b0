"""A log's lines as the rows of a page, of stored logs and of those that grow. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import NamedTuple

from agola_core.runservice.artifacts.line_index import split_lines
from agola_http.page.log.terminal import Span, Style, spans

_URL = re.compile(r"https?://[^\s<>\"'`\x00-\x1f]{1,2000}")
_AFTER_URL = ".,;:!?)]}"
_BAD = re.compile(
    r"^\s*(?!0 )(?:\S{0,40} )?(?:(?:error|fatal|panic|fail(?:ed|ure)?)\b|traceback \(most|e   )"
    r"|\b(?:error|fatal|panic|critical)\b ?[:!\]]|::error",
    re.IGNORECASE,
)
_ODD = re.compile(r"^\s*(?!0 )(?:\S{0,40} )?warn(?:ing)?s?\b|\bwarn(?:ing)?\b ?[:!\]]|::warning", re.IGNORECASE)
_MARKED_CHARACTERS = 400


class Row(NamedTuple):
    """A line: its number, from 1, and its pieces."""

    number: int
    spans: list[Span]


def rows(lines: Iterable[bytes], first: int, style: Style | None = None) -> Iterator[Row]:
    """Yield the rows of lines; a style goes on from line to line until it is reset, as in a terminal.

    Args:
        lines: The lines, with or without their newlines.
        first: The number of the first one.
        style: The style before them; changed to the one after them.
    """
    style = {} if style is None else style
    for number, line in enumerate(lines, first):
        yield Row(number, spans(line.decode(errors="replace").removesuffix("\n"), style))


def html(row: Row, link: str = "") -> str:
    """Return a row as HTML, on one line; its number leads to the line's own address.

    Args:
        row: The row.
        link: The page of the line's address; "" for the page that shows it.
    """
    text = "".join(span.text for span in row.spans)[:_MARKED_CHARACTERS]
    kind = ' class="bad"' if _BAD.search(text) else ' class="odd"' if _ODD.search(text) else ""
    pieces = "".join(
        f'<i class="{span.classes}">{_linked(span.text)}</i>' if span.classes else _linked(span.text)
        for span in row.spans
    )
    number = row.number
    name = "" if link else f' id="L{number}"'
    return f'<div{name}{kind}><a href="{escape(link)}#L{number}" tabindex="-1">{number}</a><span>{pieces}</span></div>'


def growing(pieces: Iterable[bytes], skip: int = 0) -> Iterator[bytes]:
    """Yield the rows of a growing log as HTML, each on its line; a row whose line goes on is followed by a newer one.

    Args:
        pieces: The log, cut anywhere; empty pieces are passed on.
        skip: The number of rows that are left out, as the reader has them.
    """
    held, number, style = b"", 1, Style()
    for piece in pieces:
        lines = list(split_lines(held + piece)) if piece else []
        if not lines:
            yield b""
            continue
        held = b"" if lines[-1].endswith(b"\n") else lines.pop()
        shown = [html(row) for row in rows(lines, number, style) if row.number > skip]
        number += len(lines)
        if held and number > skip:
            shown += [html(row) for row in rows([held], number, Style(style))]
        yield "".join(f"{row}\n" for row in shown).encode(errors="replace")


def _linked(text: str) -> str:
    if "http" not in text:
        return escape(text)
    done, place = "", 0
    for found in _URL.finditer(text):
        url = found[0].rstrip(_AFTER_URL)
        done += (
            f'{escape(text[place : found.start()])}<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">'
        )
        done += f"{escape(url)}</a>"
        place = found.start() + len(url)
    return done + escape(text[place:])
