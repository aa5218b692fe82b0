"""Translates S3 errors into ours; `outcomes` tells the effect of the failed request."""

from __future__ import annotations

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
from agola_core.objectstorage.s3.auth.credentials import NoCredentialsError
from agola_core.objectstorage.s3.outcomes import ResponseError
from agola_core.objectstorage.s3.protocol.connection import TruncatedBodyError

_WRONG_KEY = {
    "EntityTooLarge",
    "ExistingObjectIsDirectory",
    "InvalidArgument",
    "InvalidObjectName",
    "InvalidURI",
    "KeyTooLongError",
    "ObjectParentIsFile",
    "XMinioInvalidObjectName",
    "XMinioInvalidResourceName",
    "XMinioObjectExistsAsDirectory",
    "XMinioParentIsObject",
}
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "307"}
_FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"}
_TOKEN = {"ExpiredToken", "InvalidToken", "InvalidTokenId", "TokenRefreshRequired"}


def translate(error: Exception, what: str, bucket: str) -> AgolaError:
    """Return our error for a failed request; raise it from the original one.

    Args:
        error: What the request raised.
        what: What was to be done, such as `object 'a'`.
        bucket: The bucket.
    """
    if isinstance(error, AgolaError):
        return error
    if isinstance(error, ResponseError):
        return _of_code(error, what, bucket)
    if isinstance(error, NoCredentialsError):
        return ForbiddenError(f"{what}: no credentials for bucket {bucket!r}: {error}")
    if isinstance(error, TimeoutError):
        return DeadlineError(f"{what}: the storage did not answer in time")
    if isinstance(error, TruncatedBodyError):
        return UnavailableError(f"{what}: the answer of the storage is damaged: {error}")
    kind = "cannot be reached" if isinstance(error, OSError) else "failed"
    return UnavailableError(f"{what}: the storage {kind}: {str(error) or type(error).__name__}")


def _of_code(error: ResponseError, what: str, bucket: str) -> AgolaError:
    code, status = error.code, error.status
    if code == "NoSuchBucket":
        return UnavailableError(f"{what}: bucket {bucket!r} does not exist")
    if code == "RequestTimeTooSkewed":
        return UnavailableError(f"{what}: the clock of this machine is too far from the storage's: set it ({error})")
    if code in _ELSEWHERE:
        return UnavailableError(f"{what}: bucket {bucket!r} is in another region or at another endpoint ({error})")
    if code in _FULL or status == 507:
        return OutOfSpaceError(f"{what}: the storage is full ({error})")
    if code in _WRONG_KEY:
        return BadRequestError(f"{what}: the storage refuses it ({error})")
    if code == "NoSuchUpload":
        return UnavailableError(f"{what}: its upload was ended by somebody else: write it again ({error})")
    if status == 404:
        return NotFoundError(f"{what} does not exist")
    if status == 412:
        return ConflictError(f"{what} exists already, or was replaced meanwhile")
    if status in {401, 403} or code in _TOKEN:
        return ForbiddenError(f"{what}: the storage denies access ({error})")
    return UnavailableError(f"{what}: the storage failed ({error})")
