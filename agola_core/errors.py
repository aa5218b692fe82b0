"""Every error that agola_core raises on purpose.

::

    AgolaError
    ├── APIError                  meant for a client: its message is shown to it as it is
    │   ├── BadRequestError       the request itself is wrong
    │   │   └── ConfigError       a configuration is wrong: names the file, the line and the place in it
    │   ├── UnauthorizedError     who is asking is not known
    │   ├── ForbiddenError        who is asking may not do that
    │   ├── NotFoundError         what was named does not exist
    │   ├── ConflictError         somebody else changed it first; read again and retry
    │   │   ├── TokenExpiredError the token is older than the retained history of change groups
    │   │   └── ContentionError   others were first each time that it was tried
    │   ├── MaintenanceError      refused while the service is in maintenance mode
    │   └── InternalError         another service failed; not the client's fault, yet its to know
    ├── UnavailableError          a backend cannot be reached or does not serve for now; retrying may help
    │   ├── DeadlineError         the caller's deadline passed, or it cancelled, before an answer came
    │   ├── NoLeaderError         the backend's cluster has no majority; it serves nothing until it has one again
    │   ├── OutOfSpaceError       the backend is full: it reads and deletes, and takes no writes
    │   ├── AuthenticationError   the backend does not take this process's credentials
    │   └── AccessDeniedError     the backend knows this process, and does not let it do that
    ├── UnknownOutcomeError       a commit may or may not have happened; retry with the same WAL id
    ├── CorruptionError           stored bytes are not what was written: names the path and the offset
    ├── CompactedError            the history asked for is no longer kept
    ├── FencedError               this process lost its right to publish (lock, lease, epoch or lineage)
    ├── RecoveryError             the store must be recovered before it is used: says how
    ├── FormatError               stored data of a format or version that this release does not know
    └── ClosedError               the object was closed

`APIError` subclasses carry an `ErrorKind`; adapters map the kind to their own protocol (HTTP statuses, exit
codes). A client gets the message of the innermost API error of a chain (`api_error`), the log gets the chain.
Source: the error rules of Agola 0.2, where a remote error is wrapped by what adds context to it.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterator


class ErrorKind(enum.StrEnum):
    """What a client is told an error is."""

    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    MAINTENANCE = "maintenance"
    INTERNAL = "internal"


class AgolaError(Exception):
    """Base of every error of this package. It survives pickling and copying, whatever its constructor takes."""

    def __reduce__(self) -> tuple[object, ...]:
        """Return what makes it anew: without the constructor, whose arguments are not kept."""
        return _anew, (type(self), self.args), self.__dict__.copy()


def _anew(kind: type[AgolaError], args: tuple[object, ...]) -> AgolaError:
    return kind.__new__(kind, *args)


class APIError(AgolaError):
    """An error whose message may be shown to a client."""

    kind: ErrorKind = ErrorKind.INTERNAL


class BadRequestError(APIError):
    """The request itself is wrong; the same request will fail again."""

    kind = ErrorKind.BAD_REQUEST


class ConfigError(BadRequestError):
    """A configuration is wrong.

    Args:
        message: What is wrong.
        source: The file, as the user named it.
        line: The line in it, from 1; None where it is not known.
        place: The path inside the document, such as `runs[0].tasks[2].steps[1]`.
    """

    def __init__(self, message: str, *, source: str = "", line: int | None = None, place: str = "") -> None:
        self.message = message
        self.source = source
        self.line = line
        self.place = place
        where = f"{source}:{line}" if source and line is not None else source
        super().__init__(": ".join(part for part in (where, place, message) if part))


class UnauthorizedError(APIError):
    """Who is asking is not known."""

    kind = ErrorKind.UNAUTHORIZED


class ForbiddenError(APIError):
    """Who is asking may not do that."""

    kind = ErrorKind.FORBIDDEN


class NotFoundError(APIError):
    """What was named does not exist."""

    kind = ErrorKind.NOT_FOUND


class ConflictError(APIError):
    """Somebody else changed it first: read again, decide again, retry."""

    kind = ErrorKind.CONFLICT


class TokenExpiredError(ConflictError):
    """The token is older than the retained history of change groups."""


class ContentionError(ConflictError):
    """Others were first each time that it was tried; nothing was written."""


class MaintenanceError(APIError):
    """Refused while the service is in maintenance mode."""

    kind = ErrorKind.MAINTENANCE


class InternalError(APIError):
    """Another service failed: neither access nor bad input, yet the client is told what happened."""

    kind = ErrorKind.INTERNAL


class UnavailableError(AgolaError):
    """A backend cannot be reached, or does not serve, for now; retrying may help."""


class DeadlineError(UnavailableError):
    """The caller's deadline passed, or it cancelled, before an answer came."""


class NoLeaderError(UnavailableError):
    """The backend's cluster has no majority: it serves nothing until it has one again."""


class OutOfSpaceError(UnavailableError):
    """The backend is full: it reads and deletes, and takes no writes until somebody makes room."""


class AuthenticationError(UnavailableError):
    """The backend does not take this process's credentials: somebody must correct them."""


class AccessDeniedError(UnavailableError):
    """The backend knows this process, and does not let it do that: somebody must grant it."""


class UnknownOutcomeError(AgolaError):
    """A commit may or may not have happened; a retry with the same WAL id never applies twice."""


class CorruptionError(AgolaError):
    """Stored bytes are not what was written.

    Args:
        message: What does not hold.
        path: The object, as its storage names it.
        offset: The first byte of the damaged part.
    """

    def __init__(self, message: str, *, path: str, offset: int = 0) -> None:
        self.message = message
        self.path = path
        self.offset = offset
        super().__init__(f"{path} at offset {offset}: {message}")


class CompactedError(AgolaError):
    """The history asked for is no longer kept.

    Args:
        message: What was asked for.
        oldest: The oldest revision or sequence that is still kept.
    """

    def __init__(self, message: str, *, oldest: int | str) -> None:
        self.oldest = oldest
        super().__init__(message)


class FencedError(AgolaError):
    """This process lost its right to publish: its lock, lease, epoch or lineage is no longer the current one."""


class RecoveryError(AgolaError):
    """The store must be recovered before it is used; the message says how."""


class FormatError(AgolaError):
    """Stored data of a format or version that this release does not know."""


class ClosedError(AgolaError):
    """The object was closed."""


def disk_error(error: OSError, message: str) -> UnavailableError:
    """Return what an error of the operating system means for a backend: no room, or something else.

    Args:
        error: What it raised.
        message: What is told besides.
    """
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return OutOfSpaceError(f"{message}: the disk is full")
    return UnavailableError(f"{message}: {error.strerror or error}")


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything it was raised from, outermost first.

    Args:
        error: The error that was caught.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def api_error(error: BaseException) -> APIError | None:
    """Return the innermost API error of a chain: what a client is shown; None when there is none.

    Only what was raised `from` another wraps it: an error that came while another was handled is another matter.

    Args:
        error: The error that was caught.
    """
    found = error if isinstance(error, APIError) else None
    seen = {id(error)}
    while (cause := error.__cause__) is not None and id(cause) not in seen:
        seen.add(id(cause))
        found = cause if isinstance(cause, APIError) else found
        error = cause
    return found
