"""The outcome table of Google Cloud Storage and Azure: the effect of each failed request."""

from __future__ import annotations

from collections.abc import Callable

from agola_core.objectstorage.cloud.errors import ServiceError
from agola_core.objectstorage.outcome import Outcome, Row


def row_of(error: BaseException) -> Row:
    """Return the table row of an error."""
    return next(row for row in TABLE if row.matches(error))


def _is(matches: Callable[[ServiceError], bool]) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, ServiceError) and matches(error)


_SERVICE = "the services' references of error codes"

TABLE = (
    Row(
        "no credentials, nothing sent",
        _is(lambda error: error.is_credentials),
        Outcome.NOT_APPLIED,
        False,
        "obstore signs before it sends",
    ),
    Row(
        "no connection",
        _is(lambda error: error.kind == "Connect"),
        Outcome.NOT_APPLIED,
        True,
        "object_store: HttpErrorKind::Connect, the request was not sent",
    ),
    Row(
        "409 or 412", _is(lambda error: error.status in {409, 412}), Outcome.UNKNOWN, False, "it may be our own object"
    ),
    Row("408 or 429", _is(lambda error: error.status in {408, 429}), Outcome.UNKNOWN, True, _SERVICE),
    Row("5xx", _is(lambda error: error.status >= 500), Outcome.UNKNOWN, True, _SERVICE),
    Row("another 3xx or 4xx", _is(lambda error: error.status > 0), Outcome.NOT_APPLIED, False, _SERVICE),
    Row(
        "no answer in time, or a broken one", _is(lambda error: bool(error.kind)), Outcome.UNKNOWN, True, "it was sent"
    ),
    Row("anything else", lambda _: True, Outcome.UNKNOWN, False, "an error of this side, at any place"),
)
"""Every error; the first matching row applies."""
