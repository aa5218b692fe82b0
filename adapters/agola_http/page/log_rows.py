"""A log's lines as the rows of a page: the text that a terminal would leave, in its colours. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_OTHER_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-ln-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_STYLE = re.compile(r"\x1b\[([0-9;]*)m")
_SWITCHES = {1: "bold", 2: "dim", 3: "italic", 4: "underline"}
_ENDS = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",)}


class Span(NamedTuple):
    """A piece of a line: its text, and the classes of its style."""

    text: str
    classes: str


class Row(NamedTuple):
    """A line: its number, from 1, and its pieces."""

    number: int
    spans: list[Span]


def rows(lines: Iterable[bytes], first: int) -> Iterator[Row]:
    """Yield the rows of lines; a style goes on from line to line until it is reset, as in a terminal.

    Args:
        lines: The lines, with or without their newlines.
        first: The number of the first one.
    """
    style: dict[str, str] = {}
    for number, line in enumerate(lines, first):
        text = line.decode(errors="replace").removesuffix("\n")
        text = _OTHER_ESCAPE.sub("", text).rstrip("\r").rpartition("\r")[2]
        yield Row(number, list(_spans(text, style)))


def _spans(text: str, style: dict[str, str]) -> Iterator[Span]:
    place = 0
    for found in _STYLE.finditer(text):
        if found.start() > place:
            yield Span(text[place : found.start()], " ".join(style.values()))
        _apply([int(code or 0) for code in found[1].split(";")] if len(found[1]) < 100 else [0], style)
        place = found.end()
    if place < len(text):
        yield Span(text[place:], " ".join(style.values()))


def _apply(codes: list[int], style: dict[str, str]) -> None:
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


def _set_colour(style: dict[str, str], colour: int, *, ground: bool) -> None:
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
