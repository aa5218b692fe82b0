"""Translates obstore's errors into ours.

obstore reports an exception class and a text, but no status or code. We parse both from the text and then drop it,
because it contains the request's URL, which may be signed.
"""

from __future__ import annotations

import re
from typing import Self

from agola_core.errors import (
    AgolaError,
    BadRequestError,
    ConflictError,
    DeadlineError,
    ForbiddenError,
    NotFoundError,
    OutOfSpaceError,
    UnavailableError,
)

_STATUS = re.compile(r"non-2xx status code: (\d{3})|\(code: (\d{3})\)|status: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,80})</Code>")
_KIND = re.compile(r"kind: (Connect|Request|Timeout|Interrupted|Decode|Unknown)\b")
_CLASSES = {"FileNotFoundError": 404, "NotFoundError": 404, "AlreadyExistsError": 412, "PreconditionError": 412}


class ServiceError(Exception):
    """A service's refusal, or a connection that failed.

    Args:
        status: The HTTP status; 0 where none came.
        code: The service's own; "" for none.
        kind: How the connection failed, in object_store's words; "" where an answer came.
        is_credentials: Whether there are no credentials, or they cannot be fetched.
    """

    def __init__(self, status: int, code: str, kind: str, *, is_credentials: bool = False) -> None:
        super().__init__(status, code, kind)  # what it is unpickled from
        self.status = status
        self.code = code
        self.kind = kind
        self.is_credentials = is_credentials

    def __str__(self) -> str:
        """Return the code, the status, or how the connection failed."""
        return self.code or (str(self.status) if self.status else self.kind) or "failed"

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Parse an obstore exception."""
        text = str(error)
        found = _STATUS.search(text)
        status = int(next(filter(None, found.groups()))) if found else _CLASSES.get(type(error).__name__, 0)
        code, kind = _CODE.search(text), _KIND.search(text)
        return cls(
            status,
            code[1] if code else "",
            kind[1] if kind and not found else "",
            is_credentials="token request" in text or "TokenRequest" in text or "MissingCredentials" in text,
        )


def translate(error: ServiceError, what: str, bucket: str) -> AgolaError:
    """Return our error for a service error; raise it from that one.

    Args:
        error: What the request raised.
        what: What was to be done, such as `object 'a'`.
        bucket: The bucket.
    """
    if error.is_credentials:
        return ForbiddenError(f"{what}: no credentials for bucket {bucket!r}, or they cannot be fetched ({error})")
    if error.code in {"ContainerNotFound", "NoSuchBucket"}:
        return UnavailableError(f"{what}: bucket {bucket!r} does not exist")
    if error.status == 404:
        return NotFoundError(f"{what} does not exist")
    if error.status in {409, 412}:
        return ConflictError(f"{what} exists already, or was replaced meanwhile ({error})")
    if error.status in {401, 403}:
        return ForbiddenError(f"{what}: the storage denies access ({error})")
    if error.status == 507 or error.code in {"InsufficientStorage", "QuotaExceeded"}:
        return OutOfSpaceError(f"{what}: the storage is full ({error})")
    if error.status == 400 and error.code in {"InvalidResourceName", "OutOfRangeInput", "InvalidUri", "KeyTooLong"}:
        return BadRequestError(f"{what}: the storage refuses it ({error})")
    if error.kind == "Timeout":
        return DeadlineError(f"{what}: the storage did not answer in time")
    if error.kind:
        return UnavailableError(f"{what}: the storage cannot be reached ({error})")
    return UnavailableError(f"{what}: the storage failed ({error})")
