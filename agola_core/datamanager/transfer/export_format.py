r"""The formats of an export: the native one and Agola 0.2's.

The native format is lines of JSON: a header, the entries grouped by data type with rising ids, the sections with
rising ids, and a footer with the counts and the blake2b-32 of every byte before it, so that a truncated stream is
always detected. Agola 0.2's format is only the entries, back to back, byte for byte as Go writes them.

::

    {"agola_export":1,"store":"...","sequence":"...","data_types":["run",...]}
    {"id":"...","data_type":"run","data":"BASE64"}
    {"section":"logs","id":"...","data":"BASE64","more":true}
    {"entries":{"run":1},"sections":{"logs":1},"digest":"..."}
"""

from __future__ import annotations

import enum
import re

import msgspec

FORMAT = 1
"""The version of the native format."""

SECTION_PIECE = 192 * 1024
"""The bytes of one line of a section's item; a longer item takes several lines."""

DIGEST_BYTES = 32


class ExportFormat(enum.StrEnum):
    """What an export looks like."""

    NATIVE = "native"
    AGOLA = "agola"


class Header(msgspec.Struct, frozen=True):
    """The first line of a native export.

    Attributes:
        agola_export: The version of the format.
        store: The id of the store whose state this is.
        sequence: The newest WAL that the export holds. A store that was imported and not written to since is
            still in the state that its export named, and says so.
        data_types: The types, in the order of the export.
    """

    agola_export: int
    store: str
    sequence: str
    data_types: tuple[str, ...]


class ExportEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One object, as Agola writes it; `data` is base64 in JSON."""

    id: str = ""
    data_type: str = ""
    data: bytes = b""


class SectionEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of an item that is not an object, such as a log.

    Attributes:
        section: What kind of item.
        id: Names it in its section.
        data: The piece.
        more: Whether another piece of the same item follows.
    """

    section: str
    id: str
    data: bytes = b""
    more: bool = False


class Footer(msgspec.Struct, frozen=True):
    """The last line of a native export.

    Attributes:
        entries: How many objects of each type the export holds.
        sections: How many items of each section.
        digest: blake2b-32 of everything before this line, in hexadecimal.
    """

    entries: dict[str, int]
    sections: dict[str, int]
    digest: str


_PLAIN = re.compile(r"[ !#-%\'-;=?-\[\]-~]*")
_encode = msgspec.json.Encoder().encode
_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{4}|.)")
_SHORT = {rb"\b": rb"\u0008", rb"\f": rb"\u000c"}
_HTML = ((b"<", rb"\u003c"), (b">", rb"\u003e"), (b"&", rb"\u0026"))
_SEPARATORS = (("\u2028".encode(), rb"\u2028"), ("\u2029".encode(), rb"\u2029"))


def as_go(encoded: bytes) -> bytes:
    """Return JSON with the escapes of Go's encoder at the time of Agola 0.2, which make it safe in HTML.

    Args:
        encoded: JSON without white space between its parts.
    """
    for plain, escaped in (*_HTML, *_SEPARATORS):
        if plain in encoded:  # none of them can stand outside a string
            encoded = encoded.replace(plain, escaped)
    if b"\\b" in encoded or b"\\f" in encoded:
        encoded = _ESCAPE.sub(lambda match: _SHORT.get(match[0], match[0]), encoded)
    return encoded


def encode_entry(object_id: str, data_type: str, data: bytes) -> bytes:
    """Return an entry as Go writes it: empty fields left out, no line end."""
    encoded = _encode(ExportEntry(object_id, data_type, data))
    return encoded if _PLAIN.fullmatch(object_id) else as_go(encoded)
