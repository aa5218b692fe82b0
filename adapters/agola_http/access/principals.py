"""Kinds of callers, and the authenticated caller of one request."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Principal(enum.StrEnum):
    """Who may call an endpoint. An admin may also do what a client may."""

    PUBLIC = "public"
    CLIENT = "client"
    EXECUTOR = "executor"
    ADMIN = "admin"


@dataclass(frozen=True)
class Caller:
    """Who makes a request.

    Attributes:
        principal: Its kind, as its token proves; PUBLIC without a token.
        executor_id: The only executor that its token may act for; None for any.
    """

    principal: Principal = Principal.PUBLIC
    executor_id: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether a token was shown and is right."""
        return self.principal is not Principal.PUBLIC

    def __str__(self) -> str:
        """Return the caller as the access log shows it."""
        return f"{self.principal.value}:{self.executor_id}" if self.executor_id else self.principal.value
