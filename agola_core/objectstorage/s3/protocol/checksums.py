"""Checksums of S3 objects: sent with uploads, verified on reads.

An object uploaded in one request has the crc32 of its bytes. One uploaded in parts has the crc32 of its parts'
crc32s, so verifying it requires the part boundaries: our uploads store the part size as metadata.
"""

from __future__ import annotations

import base64
import hashlib
import zlib

from agola_core.encoding.numerals import whole_number
from agola_core.objectstorage.s3.protocol.connection import Answer, TruncatedBodyError
from agola_core.objectstorage.s3.protocol.requests import Pairs
from agola_core.objectstorage.s3.url import Checksum

PART_SIZE = "x-amz-meta-agola-part-size"
"""The object's metadata in which the size of a part stands."""


def upload_checksum(kind: Checksum, body: bytes) -> Pairs:
    """Return the headers by which the server can check the bytes of an upload."""
    if kind is Checksum.MD5:
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        return (("content-md5", base64.b64encode(digest).decode()),)
    return (("x-amz-checksum-crc32", base64.b64encode(_crc_bytes(zlib.crc32(body))).decode()),)


def parts_headers(kind: Checksum, part_size: int) -> Pairs:
    """Return the headers that begin an upload in parts."""
    algorithm: Pairs = (("x-amz-checksum-algorithm", "CRC32"),) if kind is Checksum.CRC32 else ()
    return ((PART_SIZE, str(part_size)), *algorithm)


class ContentCheck:
    """Checks the bytes of a whole object, piece by piece, against what the server knows of it.

    Args:
        answer: The server's answer to a GET or HEAD of the object, with the checksum asked for.
        size: The object's size in bytes.
    """

    def __init__(self, answer: Answer, size: int) -> None:
        self._expected, _, parts = answer.headers.get("x-amz-checksum-crc32", "").partition("-")
        noted = answer.headers.get(PART_SIZE, "")
        self._part_size = (whole_number(noted) or 0) if parts else 0
        if parts and not self._part_size:
            self._expected = ""  # parts of unknown sizes: another program's upload
        self._size = size
        self._seen = 0
        self._crc = 0
        self._part_crcs: list[bytes] = []

    def update(self, piece: bytes) -> None:
        """Take in the next bytes."""
        if not self._part_size:
            self._crc = zlib.crc32(piece, self._crc)
            self._seen += len(piece)
            return
        view = memoryview(piece)
        while view:
            taken = view[: self._part_size - self._seen % self._part_size]
            self._crc = zlib.crc32(taken, self._crc)
            self._seen, view = self._seen + len(taken), view[len(taken) :]
            if self._seen % self._part_size == 0:
                self._end_part()

    def finish(self) -> None:
        """Raise `TruncatedBodyError` when the bytes were not those of the object."""
        if self._part_size and self._seen % self._part_size:
            self._end_part()
        if self._seen != self._size:
            raise TruncatedBodyError(f"{self._seen} of {self._size} bytes came")
        crc = zlib.crc32(b"".join(self._part_crcs)) if self._part_size else self._crc
        if self._expected and self._expected != base64.b64encode(_crc_bytes(crc)).decode():
            raise TruncatedBodyError("its checksum does not match")

    def _end_part(self) -> None:
        self._part_crcs.append(_crc_bytes(self._crc))
        self._crc = 0


def _crc_bytes(crc: int) -> bytes:
    return crc.to_bytes(4, "big")
