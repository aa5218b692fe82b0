"""Maps the core's errors to HTTP responses, and responses back to errors."""

from __future__ import annotations

import logging
import uuid

import msgspec

from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import (
    AgolaError,
    APIError,
    BadRequestError,
    ConflictError,
    ErrorKind,
    ForbiddenError,
    InternalError,
    MaintenanceError,
    NotFoundError,
    RecoveryError,
    TokenExpiredError,
    UnauthorizedError,
    UnavailableError,
    api_error,
)
from agola_core.runtime.failures import log_failure

logger = logging.getLogger(__name__)

STATUS = {
    ErrorKind.BAD_REQUEST: 400,
    ErrorKind.UNAUTHORIZED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.INTERNAL: 500,
    ErrorKind.MAINTENANCE: 503,
}
BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
}
_UNAVAILABLE = {408, 429, 502, 503, 504}
NO_ROUTE = "404 page not found"
"""What a service answers outside of its routes, as Agola does."""
ERROR_HEADER = "Agola-Error"
ERROR_ID_HEADER = "Agola-Error-Id"
_TOLD: tuple[type[APIError], ...] = (TokenExpiredError, MaintenanceError, InternalError, *BY_STATUS.values())
_BY_CODE = {kind.__name__: kind for kind in _TOLD}


class ErrorDocument(msgspec.Struct, frozen=True):
    """The body of every error response; Agola's clients crash on one without a message."""

    message: str


_RECOVERY = (
    "the coordinator or the storage is another one than the service began with: it was wiped, replaced, moved or set "
    "back; the operator must restart the service with the store's own, or recover the store by agola-core recover"
)
"""The rest of a `RecoveryError` has addresses and paths: it is in the log."""


class Told(msgspec.Struct, frozen=True):
    """The part of an error that a client is told.

    Attributes:
        status: The status.
        message: What has happened.
        code: The name of the error's type: the header `Agola-Error`.
        mark: An id that finds the whole chain of an unexpected error in the server's log: the header `Agola-Error-Id`.
    """

    status: int
    message: str
    code: str = ""
    mark: str = ""

    def headers(self) -> dict[str, str]:
        """Return the headers."""
        found = {ERROR_HEADER: self.code, ERROR_ID_HEADER: self.mark}
        return {name: value for name, value in found.items() if value}


class RefusedError(BadRequestError):
    """The request breaks a rule of HTTP itself; the response has a status of its own.

    Args:
        status: The status.
        message: The reason.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def describe(error: BaseException, request: str) -> Told:
    """Return the part of an error that the client is told, and log the rest.

    The client is shown the innermost API error of the chain; of anything else only an id, and where a backend is
    away for now, that trying again later may help, or for a backend that is another one, what the operator must do.

    Args:
        error: The exception.
        request: The method and the path, for the log.
    """
    found = api_error(error)
    if isinstance(found, RefusedError):
        return Told(found.status, str(found))
    if found is not None and found.kind is not ErrorKind.INTERNAL:
        if found is not error:  # the context around it is for the log alone
            logger.info("%s: %s", request, error)
        return Told(STATUS[found.kind], str(found), _code(found))
    mark = uuid.uuid4().hex[:12]
    log_failure(logger, error, "%s failed: id=%s", request, mark)
    if found is not None:
        return Told(500, str(found), _code(found), mark)
    if isinstance(error, RecoveryError):
        return Told(503, f"{_RECOVERY} (id {mark})", mark=mark)
    if isinstance(error, UnavailableError):
        return Told(503, f"a backend is unavailable: try again later (id {mark})", mark=mark)
    return Told(500, f"internal server error (id {mark})", mark=mark)


def restore(status: int, body: bytes, code: str = "") -> AgolaError:
    """Return the error that a server's response reports.

    Args:
        status: The status of the response, not 2xx.
        body: Its body.
        code: Its header `Agola-Error`.
    """
    try:
        document = msgspec.json.decode(body, type=ErrorDocument)
    except DECODE_ERRORS:
        text = " ".join(body[:200].decode(errors="replace").split())
        shown = "a web page, so this is no run service" if text.lower().startswith(("<!doctype", "<html")) else text
        document = ErrorDocument(f"unknown api error (code: {status}): {shown}")
    kind = _BY_CODE.get(code) or BY_STATUS.get(status)
    if kind is NotFoundError and document.message == NO_ROUTE:
        return NotFoundError(f"{NO_ROUTE}: there is no run service at this URL")
    if kind is not None:
        return kind(document.message)
    return (UnavailableError if status in _UNAVAILABLE else InternalError)(document.message)


def _code(error: APIError) -> str:
    for kind in type(error).__mro__:
        if kind.__name__ in _BY_CODE:
            return kind.__name__
    return ""
