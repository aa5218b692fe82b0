"""Resolves plain YAML scalars by the rules of the library that Agola 0.2 uses. Pure.

They are YAML 1.1's with exceptions: `y` and `n` are booleans, an exponent needs a sign, there are no sexagesimals, and
a date is a text.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct

Scalar = str | int | float | bool | None

_PREFIX = "tag:yaml.org,2002:"
_RESOLVED = frozenset(("", *(_PREFIX + name for name in ("str", "bool", "int", "float", "null", "timestamp"))))
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGER = re.compile(r"([+-]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|[1-9][0-9]*|0)")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+][0-9]+)?")
_POINT_FLOAT = re.compile(r"\.[0-9]+(?:[eE][-+]?[0-9]+)?")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(?:[Tt][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})"
    r"| +[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?)?"
)
_BASES = {"x": 16, "b": 2, "o": 8}
_MAX_DIGITS = 64  # more than any number of 64 bits has, in every base


def resolve(tag: str, text: str) -> Scalar:
    """Return the value of a scalar.

    Args:
        tag: "" for a plain scalar without one.
        text: As it is written.

    Raises:
        ValueError: The text does not fit the tag.
    """
    if tag == _PREFIX + "binary":
        return _binary(text)
    if tag == _PREFIX + "str" or tag not in _RESOLVED:
        return text
    value = _plain(text)
    kind = tag.removeprefix(_PREFIX)
    if not tag or kind == _kind(value) or (kind == "timestamp" and _TIMESTAMP.fullmatch(text)):
        return text if kind == "timestamp" else value
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{text[:40]!r} is not of the type that its tag says: {kind}")


def as_text(value: float) -> str:
    """Return the text that a number or a boolean is converted to; fractions have 32 bits."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    try:
        single = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        single = math.copysign(math.inf, value)
    if math.isinf(single):
        return "+Inf" if single > 0 else "-Inf"
    return _shortest(single)


def _shortest(single: float) -> str:
    for digits in range(9):
        written = f"{single:.{digits}e}"
        if struct.unpack("f", struct.pack("f", float(written)))[0] == single:
            break
    mantissa, exponent = written.split("e")
    power = int(exponent)
    if not -4 <= power < 6:
        return f"{mantissa}e{power:+03d}"
    sign = "-" if mantissa.startswith("-") else ""
    figures = mantissa.lstrip("-").replace(".", "")
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{figures}"
    whole, rest = figures[: power + 1].ljust(power + 1, "0"), figures[power + 1 :]
    return f"{sign}{whole}.{rest}" if rest else f"{sign}{whole}"


def _plain(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] == ".":
        return _float(text, text, _POINT_FLOAT)
    if text[0] not in "+-0123456789":
        return text
    plain = text.replace("_", "")  # a date is none of both, and so a text
    number = _integer(plain)
    return number if number is not None else _float(text, plain, _FLOAT)


def _integer(plain: str) -> int | None:
    match = _INTEGER.fullmatch(plain)
    if match is None:
        return None
    sign, digits = match[1], match[2]
    base = 10
    if digits[0] == "0" and len(digits) > 1:
        base = _BASES.get(digits[1].lower(), 8)
        digits = digits[2:] if digits[1].isalpha() else digits[1:]
    digits = digits.lstrip("0") or "0"
    if len(digits) > _MAX_DIGITS:
        return None
    value = int(digits, base)
    fits = value <= (1 << 63) if sign == "-" else value < (1 << 63) if sign == "+" else value < (1 << 64)
    return (-value if sign == "-" else value) if fits else None


def _float(text: str, plain: str, form: re.Pattern[str]) -> float | str:
    if not form.fullmatch(plain):
        return text
    value = float(plain)
    return text if math.isinf(value) else value


def _binary(text: str) -> str:
    try:
        data = base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except binascii.Error as error:
        raise ValueError("a !!binary that is not base64") from error
    return lossy(data)


def lossy(data: bytes) -> str:
    """Decode bytes, each byte that is not UTF-8 replaced by one character."""
    decoded = data.decode("utf-8", "surrogateescape")
    return "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= char <= "\udfff" else char for char in decoded)


def _kind(value: Scalar) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    return {int: "int", float: "float", str: "str"}[type(value)]
