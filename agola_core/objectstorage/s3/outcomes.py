"""The outcome table of S3: the effect of each failed request, with the source for it.

After a write with an unknown outcome, `upload` reads what is stored before it reports anything; a request that was not
applied can be retried without that. An error that sounds like a refusal is not one unless a source says so: a server
with several disks may answer 503 to a write that some of them have stored.
"""

from __future__ import annotations

from collections.abc import Callable

from agola_core.objectstorage.outcome import Outcome, Row
from agola_core.objectstorage.s3.auth.credentials import NoCredentialsError
from agola_core.objectstorage.s3.protocol.connection import NotConnectedError, TruncatedBodyError, UntrustedError


class ResponseError(Exception):
    """A server's answer that is an error.

    Args:
        status: The HTTP status; 500 for an error that came with a status of success.
        code: S3's code, or the status where there is none.
        message: The server's; may be empty.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, code, message)  # what it is unpickled from
        self.status = status
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """Return the code and the message."""
        return f"{self.code}: {self.message or self.status}"


def code_of(error: BaseException | None) -> str:
    """Return the server's code for an error; "" for an error that no server sent."""
    return error.code if isinstance(error, ResponseError) else ""


def status_of(error: BaseException | None) -> int:
    """Return the HTTP status of an error; 0 for an error that no server sent."""
    return error.status if isinstance(error, ResponseError) else 0


def row_of(error: BaseException) -> Row:
    """Return the table row of an error."""
    return next(row for row in TABLE if row.matches(error))


def _has_code(*codes: str) -> Callable[[BaseException], bool]:
    return lambda error: code_of(error) in codes


def _has_status(*statuses: int) -> Callable[[BaseException], bool]:
    return lambda error: status_of(error) in statuses


def _is(*kinds: type[BaseException]) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, kinds)


_S3_ERRORS = "Amazon S3 API reference, error responses"
_CONDITIONAL = "Amazon S3 user guide, conditional writes"

TABLE = (
    Row(
        "no credentials, nothing sent",
        _is(NoCredentialsError),
        Outcome.NOT_APPLIED,
        False,
        "requests are signed before they are sent",
    ),
    Row(
        "a certificate that is not trusted",
        _is(UntrustedError),
        Outcome.NOT_APPLIED,
        False,
        "TLS: the request comes later",
    ),
    Row(
        "no connection: refused, no route, no such host",
        _is(NotConnectedError),
        Outcome.NOT_APPLIED,
        True,
        "the connection is made first: nothing was sent",
    ),
    Row("no answer in time", _is(TimeoutError), Outcome.UNKNOWN, True, "the server may be at work on it"),
    Row(
        "an answer that is cut short or damaged",
        _is(TruncatedBodyError),
        Outcome.UNKNOWN,
        True,
        "an answer began, and what it was is not known",
    ),
    Row(
        "the connection broke before the answer",
        _is(OSError),
        Outcome.UNKNOWN,
        True,
        "the server may have had all of the request",
    ),
    Row(
        "400 RequestTimeout, BadDigest, IncompleteBody: less, or other, bytes came than were sent",
        _has_code("RequestTimeout", "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"),
        Outcome.NOT_APPLIED,
        True,
        _S3_ERRORS,
    ),
    Row(
        "409 ConditionalRequestConflict, OperationAborted",
        _has_code("ConditionalRequestConflict", "OperationAborted"),
        Outcome.NOT_APPLIED,
        True,
        _CONDITIONAL + ": another operation was faster; upload again",
    ),
    Row(
        "409 ExistingObjectIsDirectory",
        _has_code("ExistingObjectIsDirectory"),
        Outcome.NOT_APPLIED,
        True,
        "versitygw answers so whenever its last step fails, a directory that vanished meanwhile among the reasons",
    ),
    Row(
        "404 NoSuchUpload",
        _has_code("NoSuchUpload"),
        Outcome.UNKNOWN,
        False,
        _S3_ERRORS + ": the upload was aborted, or completed",
    ),
    Row(
        "412 PreconditionFailed",
        _has_status(412),
        Outcome.UNKNOWN,
        False,
        _CONDITIONAL + "; what is there may be of an earlier attempt of the same write",
    ),
    Row(
        "429 TooManyRequests",
        _has_status(429),
        Outcome.NOT_APPLIED,
        True,
        "RFC 6585; MinIO's limit of requests stands before its handlers",
    ),
    Row(
        "500, 502, 503, 504, 507, SlowDown, Throttling, and an error after a 200",
        lambda error: status_of(error) >= 500 or code_of(error).startswith(("SlowDown", "Throttling", "InternalError")),
        Outcome.UNKNOWN,
        True,
        "MinIO says SlowDownWrite when too few disks have a write; a completion may fail after its 200",
    ),
    Row("another 3xx or 4xx", _is(ResponseError), Outcome.NOT_APPLIED, False, _S3_ERRORS),
    Row("anything else", lambda _: True, Outcome.UNKNOWN, False, "an error of this side, at any place"),
)
"""Every error; the first matching row applies."""
