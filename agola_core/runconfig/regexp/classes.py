"""Character classes of Go's regular expressions: named classes, ranges, and case folding. Pure."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Range = tuple[str, str]

ESCAPED = re.compile(
    r"\\(?:x(?P<hex>[0-9a-fA-F]{2})|x\{(?P<braced>[0-9a-fA-F]+)\}"
    r"|(?P<octal>[1-7][0-7]{1,2}|0[0-7]{0,2})|(?P<char>[afnrtv]|[!-/:-@\[-`{-~ \x00-\x1f\x7f]))",
)
"""A character that is written with a backslash; the back-references of other languages are not among them."""

PERL_CLASSES: dict[str, list[Range]] = {
    "d": [("0", "9")],
    "s": [("\t", "\n"), ("\f", "\r"), (" ", " ")],
    "w": [("0", "9"), ("A", "Z"), ("_", "_"), ("a", "z")],
}

_POSIX: dict[str, list[Range]] = {
    "alnum": [("0", "9"), ("A", "Z"), ("a", "z")],
    "alpha": [("A", "Z"), ("a", "z")],
    "ascii": [("\0", "\x7f")],
    "blank": [("\t", "\t"), (" ", " ")],
    "cntrl": [("\0", "\x1f"), ("\x7f", "\x7f")],
    "digit": [("0", "9")],
    "graph": [("!", "~")],
    "lower": [("a", "z")],
    "print": [(" ", "~")],
    "punct": [("!", "/"), (":", "@"), ("[", "`"), ("{", "~")],
    "space": [("\t", "\r"), (" ", " ")],
    "upper": [("A", "Z")],
    "word": PERL_CLASSES["w"],
    "xdigit": [("0", "9"), ("A", "F"), ("a", "f")],
}
_CATEGORIES = {
    *("C", "L", "M", "N", "P", "S", "Z"),
    *("Cc", "Cf", "Co", "Cs", "Ll", "Lm", "Lo", "Lt", "Lu", "Mc", "Me", "Mn", "Nd", "Nl", "No"),
    *("Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "Zl", "Zp", "Zs"),
}
_UNICODE_NAME = re.compile(r"\{(\^?)([A-Za-z_]+)\}|([A-Z])")


class RegexpError(ValueError):
    """A malformed regular expression."""


class RegexpLimitError(RegexpError):
    """A regular expression that Go accepts but that exceeds the limits here."""


class Flags(NamedTuple):
    """The flags that `(?ims)` sets."""

    fold_case: bool = False
    multi_line: bool = False
    dot_is_all: bool = False

    def changed(self, on: str, off: str) -> Flags:
        """Return the flags with some set and others cleared."""
        names = {"i": "fold_case", "m": "multi_line", "s": "dot_is_all"}
        changes = {names[flag]: True for flag in on if flag in names}
        changes |= {names[flag]: False for flag in off if flag in names}
        return self._replace(**changes)


class CharacterSet(NamedTuple):
    """A set of characters.

    Attributes:
        ranges: First and last characters, inclusive.
        categories: Unicode's general categories, or their first letters.
        inner: Other sets that it includes.
        fold_case: Whether case is ignored.
        is_negated: Whether it is the complement.
    """

    ranges: tuple[Range, ...] = ()
    categories: frozenset[str] = frozenset()
    inner: tuple[CharacterSet, ...] = ()
    fold_case: bool = False
    is_negated: bool = False

    @staticmethod
    def of(ranges: Iterable[Range], flags: Flags, inner: Sequence[CharacterSet] = ()) -> CharacterSet:
        """Return the union of ranges and other sets."""
        return CharacterSet(tuple(ranges), inner=tuple(inner), fold_case=flags.fold_case)

    @staticmethod
    def any(*, newline: bool) -> CharacterSet:
        """Return the set of all characters, with or without the newline."""
        return CharacterSet((("\0", chr(sys.maxunicode)),) if newline else (("\n", "\n"),), is_negated=not newline)

    def negated(self) -> CharacterSet:
        """Return the complement."""
        return self._replace(is_negated=not self.is_negated)

    def holds(self, char: str) -> bool:
        """Return whether the set contains a character."""
        return any(map(self._has, _cases(char) if self.fold_case else (char,))) != self.is_negated

    def _has(self, char: str) -> bool:
        if any(low <= char <= high for low, high in self.ranges):
            return True
        if self.categories:
            category = unicodedata.category(char)
            if category in self.categories or category[0] in self.categories:
                return True
        return any(each.holds(char) for each in self.inner)


def posix_class(name: str, flags: Flags) -> CharacterSet:
    """Return a class such as `alpha`, or `^alpha`.

    Raises:
        RegexpError: There is none of that name.
    """
    found = _POSIX.get(name.removeprefix("^"))
    if found is None:
        raise RegexpError(f"there is no class [:{name}:]")
    characters = CharacterSet.of(found, flags)
    return characters.negated() if name.startswith("^") else characters


def unicode_class(text: str, at: int, flags: Flags) -> tuple[CharacterSet, int]:
    """Return the class after a backslash and `p`, and the position of its end.

    Raises:
        RegexpError: It is not a general category; scripts are not supported.
    """
    match = _UNICODE_NAME.match(text, at)
    name = (match[2] or match[3]) if match else ""
    if match is None or (name not in _CATEGORIES and name != "Any"):
        # It may be a script, and then it is one for Go.
        raise RegexpLimitError(
            f"\\p{text[at : at + 20]} names no general category of Unicode; scripts are not known here"
        )
    if name == "Any":
        found = CharacterSet.any(newline=True)
    else:
        found = CharacterSet(categories=frozenset((name,)), fold_case=flags.fold_case)
    return (found.negated() if match[1] else found), match.end()


def _cases(char: str) -> set[str]:
    """Return all case variants of a character; a few have three."""
    found = {char, char.lower(), char.upper()}
    found |= _SAME.get(char.lower(), frozenset())
    return {each for each in found if len(each) == 1}


_SAME = {"k": frozenset("kK\N{KELVIN SIGN}"), "s": frozenset("sS\N{LATIN SMALL LETTER LONG S}")}
_SAME["\N{LATIN SMALL LETTER LONG S}"] = _SAME["s"]
_SAME["\N{LATIN SMALL LETTER A WITH RING ABOVE}"] = frozenset(
    "\N{LATIN SMALL LETTER A WITH RING ABOVE}\N{LATIN CAPITAL LETTER A WITH RING ABOVE}\N{ANGSTROM SIGN}"
)
