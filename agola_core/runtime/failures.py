"""How a failure that nobody is told of is logged."""

from __future__ import annotations

import logging

from agola_core.errors import RecoveryError, UnavailableError


def log_failure(
    logger: logging.Logger, error: BaseException, message: str, *arguments: object, level: int = logging.ERROR
) -> None:
    """Log a failure with its traceback; that of a backend which is away or is another one, in one line with its causes.

    While a coordinator or storage is away, or until a store is recovered, every loop and every request fails: their
    tracebacks would hide the rest. With debug logging they are there.

    Args:
        logger: The logger of the place where it failed.
        error: The failure.
        message: What failed, a format for the arguments.
        arguments: The format's arguments.
        level: The level it is logged at.
    """
    if isinstance(error, UnavailableError | RecoveryError) and not logger.isEnabledFor(logging.DEBUG):
        logger.log(level, f"{message}: %s", *arguments, _chain(error))
    else:
        logger.log(level, message, *arguments, exc_info=error)


def _chain(error: BaseException) -> str:
    """Return in one line the texts of an error and of those of its causes that add something."""
    texts: dict[str, str] = {}
    cause: BaseException | None = error
    while cause is not None:
        text = " ".join(str(cause).split())
        if not any(text in known for known in texts):
            texts[text] = f"{type(cause).__name__}: {text}"
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "; cause: ".join(texts.values())
