"""What the errors of an S3 server mean: which may be tried again, and what callers are told of them."""

from __future__ import annotations

from aiohttp import ClientError as TransportError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - a refused connection, and every other one that was not made
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)
from botocore.parsers import ResponseParserError

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

BUSY = {"SlowDown", "SlowDownRead", "SlowDownWrite", "RequestTimeout", "TooManyRequests", "Throttling", "InternalError",
        "ServiceUnavailable", "ConditionalRequestConflict", "OperationAborted"}  # fmt: skip
_WRONG_KEY = {"KeyTooLongError", "InvalidArgument", "InvalidObjectName", "EntityTooLarge", "InvalidURI"}
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "307"}
_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage"}
_CORRUPTED = {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"}


class TruncatedBodyError(Exception):
    """An answer has fewer bytes than it announced, or others than were written."""


def code_of(error: BaseException) -> str:
    """Return the server's code for an error; "" for an error that no server sent."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an error; 0 for an error that no server sent."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def may_retry(error: BaseException) -> bool:
    """Return whether an idempotent request that ended with this error may succeed when it is sent again."""
    if isinstance(error, ClientError):
        status = status_of(error)
        return status >= 500 or status == 429 or code_of(error) in BUSY | _CORRUPTED
    if isinstance(error, SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)  # the server will not have another one
    if isinstance(error, TimeoutError | TruncatedBodyError | OSError | TransportError | ConnectionError):
        return True
    return isinstance(error, HTTPClientError | IncompleteReadError | ResponseParserError) or _is_checksum(error)


def translate(error: Exception, what: str, bucket: str) -> AgolaError:
    """Return the error of ours that tells what happened; raise it from the original one.

    Args:
        error: What the S3 client raised.
        what: What was to be done, such as `object 'a'`.
        bucket: The bucket.
    """
    if isinstance(error, AgolaError):
        return error
    if isinstance(error, NoCredentialsError | PartialCredentialsError | ProfileNotFound):
        return ForbiddenError(f"{what}: no credentials for bucket {bucket!r}: {error}")
    if isinstance(error, TimeoutError):
        return DeadlineError(f"{what}: the storage did not answer in time")
    if isinstance(error, RecursionError):  # the client follows a server that redirects for ever
        return UnavailableError(f"{what}: bucket {bucket!r} is in another region or at another endpoint")
    if isinstance(error, TruncatedBodyError) or _is_checksum(error):
        return UnavailableError(f"{what}: the answer of the storage is damaged: {error}")
    if not isinstance(error, ClientError):
        kind = "cannot be reached" if isinstance(error, BotoCoreError | OSError | TransportError) else "failed"
        return UnavailableError(f"{what}: the storage {kind}: {str(error) or type(error).__name__}")
    return _of_code(error, what, bucket)


def _of_code(error: ClientError, what: str, bucket: str) -> AgolaError:
    code, status = code_of(error), status_of(error)
    said = f"{code}: {error.response.get('Error', {}).get('Message') or status}"
    if code == "NoSuchBucket":
        return UnavailableError(f"{what}: bucket {bucket!r} does not exist")
    if code == "RequestTimeTooSkewed":
        return UnavailableError(f"{what}: the clock of this machine is too far from the storage's: set it ({said})")
    if code in _ELSEWHERE:
        return UnavailableError(f"{what}: bucket {bucket!r} is in another region or at another endpoint ({said})")
    if code in _FULL or status == 507:
        return OutOfSpaceError(f"{what}: the storage is full ({said})")
    if code in _WRONG_KEY:
        return BadRequestError(f"{what}: the storage refuses it ({said})")
    if status == 404:
        return NotFoundError(f"{what} does not exist")
    if status == 412:
        return ConflictError(f"{what} exists already, or was replaced meanwhile")
    if status in {401, 403} or code == "ExpiredToken":
        return ForbiddenError(f"{what}: the storage denies access ({said})")
    return UnavailableError(f"{what}: the storage failed ({said})")


def _is_checksum(error: BaseException) -> bool:
    return type(error).__name__ in {"FlexibleChecksumError", "ChecksumError"}
