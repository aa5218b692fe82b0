"""A line of a log as a terminal would leave it: its text in pieces of one style. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

_OTHER_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-ln-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_STYLE = re.compile(r"\x1b\[([0-9;]*)m")
_MOVES = re.compile(r"\x1b\[([0-9;]*)m|\x1b\[([0-2]?)K|[\r\b]")
_SWITCHES = {1: "bold", 2: "dim", 3: "italic", 4: "underline"}
_ENDS = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",)}

Style = dict[str, str]
"""What the escape sequences so far have set; it goes on from line to line."""


class Span(NamedTuple):
    """A piece of a line: its text, and the classes of its style."""

    text: str
    classes: str


def spans(text: str, style: Style) -> list[Span]:
    """Return the pieces of a line without its newline.

    Args:
        text: The line.
        style: The style before it; changed to the one after it.
    """
    text = text.rstrip("\r")
    if "\r" in text or "\b" in text:
        return _written_over(text, style)
    return (
        list(_styled(_OTHER_ESCAPE.sub("", text), style)) if style or "\x1b" in text else [Span(text, "")][: len(text)]
    )


def _styled(text: str, style: Style) -> Iterator[Span]:
    place = 0
    for found in _STYLE.finditer(text):
        if found.start() > place:
            yield Span(text[place : found.start()], " ".join(style.values()))
        _apply(_codes(found[1]), style)
        place = found.end()
    if place < len(text):
        yield Span(text[place:], " ".join(style.values()))


def _written_over(text: str, style: Style) -> list[Span]:
    """Return the pieces of a line in which the cursor goes back, as progress bars do."""
    cells: list[tuple[str, str]] = []
    column = place = 0
    for found in [*_MOVES.finditer(text), None]:
        piece = _OTHER_ESCAPE.sub("", text[place : found.start() if found else len(text)])
        classes = " ".join(style.values())
        cells += [(" ", "")] * (column - len(cells))
        cells[column : column + len(piece)] = [(character, classes) for character in piece]
        column += len(piece)
        if found is None:
            break
        place = found.end()
        if found[0] == "\r":
            column = 0
        elif found[0] == "\b":
            column = max(0, column - 1)
        elif found[2] is not None:
            _erase(cells, found[2], column)
        else:
            _apply(_codes(found[1]), style)
    return [
        Span("".join(text for text, _ in run), classes) for classes, run in groupby(cells, key=lambda cell: cell[1])
    ]


def _erase(cells: list[tuple[str, str]], which: str, column: int) -> None:
    """Erase a line from the cursor to its end, to the cursor, or whole, as `which` says."""
    if which in {"1", "2"}:
        cells[: column + 1] = [(" ", "")] * min(column + 1, len(cells))
    if which != "1":
        del cells[column:]


def _codes(text: str) -> list[int]:
    return [int(code or 0) for code in text.split(";")] if len(text) < 100 else [0]


def _apply(codes: list[int], style: Style) -> None:
    """Change a style by the codes of one escape sequence; those that are not known change nothing."""
    rest = iter(codes)
    for code in rest:
        if code == 0:
            style.clear()
        elif code in _SWITCHES:
            style[_SWITCHES[code]] = _SWITCHES[code]
        elif code in _ENDS:
            for name in _ENDS[code]:
                style.pop(name, None)
        elif code in {38, 48}:
            colour = _extended(rest)
            if colour is not None:
                _set_colour(style, colour, ground=code == 48)
        elif code in {39, 49}:
            style.pop("ground" if code == 49 else "colour", None)
        elif 30 <= code <= 37 or 40 <= code <= 47:
            _set_colour(style, code % 10, ground=code >= 40)
        elif 90 <= code <= 97 or 100 <= code <= 107:
            _set_colour(style, code % 10 + 8, ground=code >= 100)


def _set_colour(style: Style, colour: int, *, ground: bool) -> None:
    style["ground" if ground else "colour"] = f"{'bg' if ground else 'fg'}{colour}"


def _extended(rest: Iterator[int]) -> int | None:
    """Return which of the sixteen colours is next to one of 256, or of all."""
    kind = next(rest, None)
    if kind == 5:
        number = next(rest, 0)
        if number < 16:
            return number
        if number >= 232:
            return (0, 8, 7, 15)[min((number - 232) // 6, 3)]
        number -= 16
        red, green, blue = (part * 51 for part in (number // 36, number // 6 % 6, number % 6))
    elif kind == 2:
        red, green, blue = (next(rest, 0) for _ in range(3))
    else:
        return None
    strongest = max(red, green, blue)
    if strongest < 64:
        return 0
    near = [2 * part > strongest for part in (red, green, blue)]
    return near[0] + 2 * near[1] + 4 * near[2] + (8 if strongest > 200 else 0)
