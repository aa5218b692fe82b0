"""The errors of agola_core as the errors that users of `eventsourcing` catch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from eventsourcing.persistence import (
    DatabaseError,
    DataError,
    IntegrityError,
    InternalError,
    OperationalError,
    ProgrammingError,
)

from agola_core.errors import (
    AgolaError,
    BadRequestError,
    ConfigError,
    ConflictError,
    CorruptionError,
    DeadlineError,
    ForbiddenError,
    NotFoundError,
    UnavailableError,
    UnknownOutcomeError,
)

_KINDS: tuple[tuple[type[AgolaError], type[DatabaseError]], ...] = (
    (ConflictError, IntegrityError),
    (CorruptionError, DataError),
    (UnavailableError, OperationalError),
    (DeadlineError, OperationalError),
    (UnknownOutcomeError, OperationalError),
    (ConfigError, ProgrammingError),
    (BadRequestError, ProgrammingError),
    (ForbiddenError, ProgrammingError),
    (NotFoundError, ProgrammingError),
)


@contextmanager
def translated() -> Iterator[None]:
    """Raise the library's error for each of agola_core's, which stays its cause.

    Raises:
        IntegrityError: A version, an append condition or a tracking position was taken meanwhile.
        OperationalError: The store cannot be reached, or did not say what became of a write.
        ProgrammingError: A request that no store could carry out.
        DataError: Stored data is damaged.
        InternalError: Anything else.
    """
    try:
        yield
    except AgolaError as error:
        for ours, theirs in _KINDS:
            if isinstance(error, ours):
                raise theirs(str(error)) from error
        raise InternalError(str(error)) from error
