"""What callers are told of the errors of an S3 server; `s3outcomes` knows what a failed request has done."""

from __future__ import annotations

from aiohttp import ClientError as TransportError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

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
from agola_core.objectstorage.s3.outcomes import TruncatedBodyError, code_of, is_checksum, status_of

_WRONG_KEY = {"KeyTooLongError", "InvalidArgument", "InvalidObjectName", "EntityTooLarge", "InvalidURI"}
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "307"}
_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage"}


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
    if isinstance(error, TruncatedBodyError) or is_checksum(error):
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
    if code == "NoSuchUpload":
        return UnavailableError(f"{what}: its upload was ended by somebody else: write it again ({said})")
    if status == 404:
        return NotFoundError(f"{what} does not exist")
    if status == 412:
        return ConflictError(f"{what} exists already, or was replaced meanwhile")
    if status in {401, 403} or code == "ExpiredToken":
        return ForbiddenError(f"{what}: the storage denies access ({said})")
    return UnavailableError(f"{what}: the storage failed ({said})")
