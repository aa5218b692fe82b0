"""Checksummed records: small JSON records in object storage, each with its digest on a second line.

The digest is the blake2b-32 of the first line, without its line end, in hexadecimal.
"""

from __future__ import annotations

import hashlib

import msgspec

from agola_core.errors import CorruptionError


def encode_checksummed(record: msgspec.Struct) -> bytes:
    """Return the stored form of a record."""
    body = msgspec.json.encode(record)
    return body + b"\n" + _digest(body) + b"\n"


def decode_checksummed(data: bytes, path: str) -> bytes:
    """Return the JSON of a stored record, after checking its digest.

    Args:
        data: The stored bytes.
        path: Their path, for the error.

    Raises:
        CorruptionError: The bytes are not what was written.
    """
    body, newline, digest = data.partition(b"\n")
    if not newline or digest != _digest(body) + b"\n":
        raise CorruptionError("the digest of the record does not match", path=path, offset=len(body))
    return body


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=32).hexdigest().encode()
