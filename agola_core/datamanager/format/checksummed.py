"""Small records in object storage: a line of JSON for people who look, and on a second line its digest.

The digest is the blake2b-32 of the first line, without its end, in hexadecimal.
"""

from __future__ import annotations

import hashlib

import msgspec

from agola_core.errors import CorruptionError


def seal(record: msgspec.Struct) -> bytes:
    """Return a record as it is stored."""
    body = msgspec.json.encode(record)
    return body + b"\n" + _digest(body) + b"\n"


def unseal(data: bytes, path: str) -> bytes:
    """Return the JSON of a stored record.

    Args:
        data: What was stored.
        path: Where it was read, for the error.

    Raises:
        CorruptionError: The bytes are not what was written.
    """
    body, newline, digest = data.partition(b"\n")
    if not newline or digest != _digest(body) + b"\n":
        raise CorruptionError("the digest of the record does not match", path=path, offset=len(body))
    return body


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=32).hexdigest().encode()
