"""Encodes the run service's records as Go encodes them, for Agola's clients, which are written in Go.

Map keys are sorted, `<`, `>`, `&` and two line separators are escaped, and times carry no trailing zeros.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder(order="deterministic")
_plain_encoder = msgspec.json.Encoder()
_ZEROS = re.compile(rb'\.\d{0,5}0(?:Z|[+-]\d\d:\d\d)"')
_ESCAPED = tuple(
    (character.encode(), f"\\u{ord(character):04x}".encode()) for character in ("<", ">", "&", "\u2028", "\u2029")
)


def encode(value: object) -> bytes:
    """Return a record, or a list or a dictionary of records, as Go would write it."""
    data = _encoder.encode(value)
    if _ZEROS.search(data):
        plain = msgspec.to_builtins(value, builtin_types=(datetime,), order="deterministic")
        data = _plain_encoder.encode(_shortened(plain))
    for character, escape in _ESCAPED:  # they stand only inside strings
        data = data.replace(character, escape)
    return data


def _shortened(value: Any) -> Any:
    if isinstance(value, datetime):
        text = value.isoformat().replace("+00:00", "Z")
        return re.sub(r"(\.\d*?)0+(?=Z|[+-])", r"\1", text) if "." in text else text
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(item) for item in value]
    return value
