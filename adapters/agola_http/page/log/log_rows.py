"""A log's lines as the rows of a page, of stored logs and of those that grow. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import NamedTuple

from agola_core.runservice.logs.line_marks import ends_group, is_error, is_warning
from agola_http.page.log.terminal import Span, Style, spans

_URL = re.compile(r"https?://[^\s<>\"'`\x00-\x1f]{1,2000}")
_AFTER_URL = ".,;:!?)]}"


class Row(NamedTuple):
    """A line: its number, from 1, its pieces, and what it is: "bad", "odd", "end" of a group, or ""."""

    number: int
    spans: list[Span]
    kind: str


def rows(lines: Iterable[bytes], first: int, style: Style | None = None) -> Iterator[Row]:
    """Yield the rows of lines; a style goes on from line to line until it is reset, as in a terminal.

    Args:
        lines: The lines, with or without their newlines.
        first: The number of the first one.
        style: The style before them; changed to the one after them.
    """
    style = {} if style is None else style
    for number, line in enumerate(lines, first):
        yield Row(number, spans(line.decode(errors="replace").removesuffix("\n"), style), _kind(line))


def _kind(line: bytes) -> str:
    if is_error(line):
        return "bad"
    if is_warning(line):
        return "odd"
    return "end" if ends_group(line) else ""


def html(row: Row, link: str = "", time: str = "", *, inside: bool = False) -> str:
    """Return a row as HTML, on one line; its number leads to the line's own address.

    Args:
        row: The row.
        link: The page of the line's address; "" for the page that shows it.
        time: When it was written, as HTML.
        inside: Tell that the row belongs to the group before it.
    """
    classes = " ".join(filter(None, [row.kind, "in" if inside else ""]))
    kind = f' class="{classes}"' if classes else ""
    pieces = "".join(
        f'<i class="{span.classes}">{_linked(span.text)}</i>' if span.classes else _linked(span.text)
        for span in row.spans
    )
    number = row.number
    name = "" if link else f' id="L{number}"'
    to_it = f'<a href="{escape(link)}#L{number}" tabindex="-1">{number}</a>'
    return f"<div{name}{kind}>{to_it}{time}<span>{pieces}</span></div>"


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
