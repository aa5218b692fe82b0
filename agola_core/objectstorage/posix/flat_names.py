"""File names of posixflat: keys split into pieces of 8 characters, so that any key may be a prefix of another.

Each piece but the last is a directory. "/" becomes `%2F` and "%" becomes `%25`; when the key's length is a
multiple of 8 the last piece gets the marker `.f`, since without it that piece may also be a directory. This is
Agola 0.2's form, with one addition: a piece that is exactly "." or ".." (or a control NUL) is escaped too.
"""

from __future__ import annotations

import re

_PIECE = 8
_MARKER = ".f"
_ESCAPED = re.compile(r"%(2F|25|2E|00)")
_PLAIN = {"%2F": "/", "%25": "%", "%2E": ".", "%00": "\0"}


def encode_flat(key: str) -> str:
    """Return the relative path of a key's file.

    Example:
        >>> encode_flat("a/b"), encode_flat("12345678"), encode_flat("123456789")
        ('a%2Fb', '12345678.f', '12345678/9')
    """
    pieces = [_escape(key[start : start + _PIECE]) for start in range(0, len(key), _PIECE)]
    if len(key) % _PIECE == 0:
        pieces[-1] += _MARKER
    return "/".join(pieces)


def decode_flat(path: str) -> str | None:
    """Return the key of a file's relative path; None for a file that `encode_flat` names no key."""
    pieces = path.split("/")
    if pieces[-1].endswith(_MARKER):
        whole = _unescape("/".join([*pieces[:-1], pieces[-1].removesuffix(_MARKER)]))
        if whole and encode_flat(whole) == path:
            return whole
    key = _unescape(path)
    return key if key and encode_flat(key) == path else None


def _escape(piece: str) -> str:
    if piece in {".", ".."}:
        return piece.replace(".", "%2E")
    return piece.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")


def _unescape(path: str) -> str:
    return _ESCAPED.sub(lambda match: _PLAIN[match[0]], path.replace("/", ""))
