"""Parses Go's regular expressions (RE2's), as far as needed to decide whether a text matches. Pure."""

from __future__ import annotations

import re

from agola_core.runconfig.regexp.classes import (
    ESCAPED,
    PERL_CLASSES,
    CharacterSet,
    Flags,
    RegexpError,
    RegexpLimitError,
    posix_class,
    unicode_class,
)
from agola_core.runconfig.regexp.expressions import (
    Alternation,
    Assertion,
    Concatenation,
    Expression,
    Position,
    Repetition,
)

_MAX_LENGTH = 100_000
_MAX_DEPTH = 50
_MAX_REPEAT = 1000
_REPEAT = re.compile(r"\{(0|[1-9][0-9]*)(,?)((?:(?<=,)(?:0|[1-9][0-9]*))?)\}")
_GROUP_NAME = re.compile(r"\(\?P?<([A-Za-z0-9_]+)>")
_GROUP_FLAGS = re.compile(r"\(\?([imsU]*)(?:-([imsU]+))?([:)])")


_TEXT_START = Assertion(lambda place: place.at == 0)
_TEXT_END = Assertion(lambda place: place.at == len(place.text))
_LINE_START = Assertion(lambda place: place.at == 0 or place.text[place.at - 1] == "\n")
_LINE_END = Assertion(lambda place: place.at == len(place.text) or place.text[place.at] == "\n")
_ASSERTIONS = {
    "A": _TEXT_START,
    "z": _TEXT_END,
    "b": Assertion(Position.is_at_word),
    "B": Assertion(lambda place: not place.is_at_word()),
}
_REPEATS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def parse_regexp(text: str) -> Expression:
    """Parse an expression.

    Raises:
        RegexpError: It is malformed.
    """
    if len(text) > _MAX_LENGTH:
        raise RegexpLimitError("it is too large")
    return _Parser(text).parse()


class _Group:
    """A group being parsed: its choices so far, and the parts of the current one."""

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        self.choices: list[Expression] = []
        self.parts: list[Expression] = []
        self.repeatable = False  # whether the last part may be repeated

    def close(self) -> Expression:
        self.next_choice()
        return self.choices[0] if len(self.choices) == 1 else Alternation(tuple(self.choices))

    def allow_repetition(self) -> None:
        self.repeatable = bool(self.parts)

    def next_choice(self) -> None:
        self.choices.append(Concatenation(tuple(self.parts)))
        self.parts = []
        self.repeatable = False


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._flags = Flags()
        self._groups = [_Group(self._flags)]
        self._names: set[str] = set()

    def parse(self) -> Expression:
        while self._at < len(self._text):
            self._one(self._text[self._at])
        if len(self._groups) > 1:
            raise RegexpError("a closing ) is missing")
        return self._groups[0].close()

    def _one(self, char: str) -> None:
        group = self._groups[-1]
        if char == "(":
            self._open()
        elif char == ")":
            self._close()
        elif char == "|":
            self._at += 1
            group.next_choice()
        elif char in _REPEATS:
            self._at += 1
            self._repeat(*_REPEATS[char], char)
        elif char == "{" and (match := _REPEAT.match(self._text, self._at)):
            self._at = match.end()
            self._counted(match)
        else:
            self._add(self._atom(char))

    def _add(self, part: Expression | None) -> None:
        if part is not None:
            group = self._groups[-1]
            group.parts.append(part)
            group.repeatable = True

    def _atom(self, char: str) -> Expression | None:
        if char == "[":
            return self._bracket()
        if char == "\\":
            return self._escape()
        self._at += 1
        if char == ".":
            return CharacterSet.any(newline=self._flags.dot_is_all)
        if char == "^":
            return _LINE_START if self._flags.multi_line else _TEXT_START
        if char == "$":
            return _LINE_END if self._flags.multi_line else _TEXT_END
        return self._literal(char)

    def _literal(self, char: str) -> CharacterSet:
        return CharacterSet.of([(char, char)], self._flags)

    # Groups.

    def _open(self) -> None:
        if len(self._groups) > _MAX_DEPTH:
            raise RegexpLimitError(f"it is nested more than {_MAX_DEPTH} deep")
        outer = self._flags
        if self._text.startswith("(?", self._at):
            named = _GROUP_NAME.match(self._text, self._at)
            flagged = _GROUP_FLAGS.match(self._text, self._at)
            if named is not None:
                self._name(named[1])
                self._at = named.end()
            elif flagged is not None:
                self._at = flagged.end()
                self._flags = self._flags.changed(flagged[1], flagged[2] or "")
                if flagged[3] == ")":
                    self._groups[-1].allow_repetition()
                    return
            else:
                raise RegexpError("a group that begins with (? in a way that Go does not know")
        else:
            self._at += 1
        self._groups.append(_Group(outer))

    def _name(self, name: str) -> None:
        if name in self._names:
            raise RegexpError(f"two groups are named {name}")
        self._names.add(name)

    def _close(self) -> None:
        if len(self._groups) == 1:
            raise RegexpError("a ) closes nothing")
        self._at += 1
        group = self._groups.pop()
        self._flags = group.flags
        self._add(group.close())

    # Repetitions.

    def _counted(self, match: re.Match[str]) -> None:
        numbers = [match[1], match[3]]
        if any(len(number.lstrip("0")) > 4 for number in numbers):
            raise RegexpError(f"it repeats more than {_MAX_REPEAT} times")
        least = int(match[1])
        most = least if not match[2] else int(match[3]) if match[3] else None
        if max(least, most or 0) > _MAX_REPEAT or (most is not None and most < least):
            raise RegexpError(f"{match[0]} repeats more than {_MAX_REPEAT} times, or from more to less")
        self._repeat(least, most, match[0])

    def _repeat(self, least: int, most: int | None, written: str) -> None:
        group = self._groups[-1]
        if not group.parts:
            raise RegexpError(f"nothing stands before {written}")
        if not group.repeatable:
            raise RegexpError(f"{written} repeats a repetition")
        if self._text.startswith("?", self._at):  # lazy: of no account to whether it matches
            self._at += 1
        repetition = Repetition(group.parts[-1], least, most)
        if _times(repetition) > _MAX_REPEAT:
            raise RegexpError(f"it repeats more than {_MAX_REPEAT} times")
        group.parts[-1] = repetition
        group.repeatable = False

    # Escapes.

    def _escape(self) -> Expression | None:
        following = self._text[self._at + 1 : self._at + 2]
        if following in _ASSERTIONS:
            self._at += 2
            return _ASSERTIONS[following]
        if following == "Q":
            self._quoted()
            return None
        named = self._named_class()
        if named is not None:
            return named
        char = self._escaped_char()
        return self._literal(char)

    def _quoted(self) -> None:
        start = self._at + 2
        end = self._text.find("\\E", start)
        self._at = len(self._text) if end < 0 else end + 2
        for char in self._text[start : len(self._text) if end < 0 else end]:
            self._add(self._literal(char))
        self._groups[-1].allow_repetition()

    def _named_class(self) -> CharacterSet | None:
        following = self._text[self._at + 1 : self._at + 2]
        if following and following.lower() in PERL_CLASSES:
            self._at += 2
            named = CharacterSet.of(PERL_CLASSES[following.lower()], self._flags)
            return named.negated() if following.isupper() else named
        if following and following in "pP":
            found, self._at = unicode_class(self._text, self._at + 2, self._flags)
            return found.negated() if following == "P" else found
        return None

    def _escaped_char(self) -> str:
        match = ESCAPED.match(self._text, self._at)
        if match is None:
            raise RegexpError(f"{self._text[self._at : self._at + 2]} is no escape that Go knows")
        self._at = match.end()
        number = match["hex"] or match["braced"]
        if number is not None:
            code = int(number[-16:], 16)
            if code > 0x10FFFF or len(number.lstrip("0")) > 6:
                raise RegexpError(f"{match[0]} is no character")
            return chr(code)
        if match["octal"] is not None:
            return chr(int(match["octal"], 8))
        return {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}.get(match["char"], match["char"])

    # Characters in brackets.

    def _bracket(self) -> CharacterSet:
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        ranges: list[tuple[str, str]] = []
        named: list[CharacterSet] = []
        first = True
        while first or not self._text.startswith("]", self._at):
            first = False
            found = self._class_in_bracket()
            if found is not None:
                named.append(found)
                continue
            low = high = self._char_in_bracket()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                high = self._char_in_bracket()
                if high < low:
                    raise RegexpError(f"the range {low}-{high} runs backwards")
            ranges.append((low, high))
        self._at += 1
        found = CharacterSet.of(ranges, self._flags, named)
        return found.negated() if negated else found

    def _class_in_bracket(self) -> CharacterSet | None:
        if self._text.startswith("[:", self._at):
            end = self._text.find(":]", self._at + 2)
            if end >= 0:
                found = posix_class(self._text[self._at + 2 : end], self._flags)
                self._at = end + 2
                return found
        return self._named_class() if self._text.startswith("\\", self._at) else None

    def _char_in_bracket(self) -> str:
        if self._at >= len(self._text):
            raise RegexpError("a closing ] is missing")
        if self._text[self._at] == "\\":
            return self._escaped_char()
        self._at += 1
        return self._text[self._at - 1]


def _times(expression: Expression) -> int:
    """Return how often the innermost repetition is repeated by the outer ones."""
    match expression:
        case Concatenation(parts):
            return max(map(_times, parts), default=1)
        case Alternation(choices):
            return max(map(_times, choices))
        case Repetition(inner, least, most):
            times = most if most is not None else least
            counted = (least, most) not in _REPEATS.values()
            return _times(inner) * (max(times, 1) if counted else 1)
        case _:
            return 1
