"""Refuses every change of a coordinator that was opened read-only."""

from __future__ import annotations

from typing import NoReturn

from agola_core.errors import ForbiddenError


class ReadOnly:
    """Comes before a backend's own class: everything but reads raises `ForbiddenError`."""

    def txn(self, *_: object, **__: object) -> NoReturn:
        """Refuse a change."""
        refuse()

    grant_lease = keep_alive = revoke_lease = compact = txn


def refuse() -> NoReturn:
    """Raise `ForbiddenError`."""
    raise ForbiddenError("the store was opened to be read only")
