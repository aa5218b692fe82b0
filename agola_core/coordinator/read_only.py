"""A read-only coordinator: refuses every change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, Protocol

from agola_core.coordinator.port import MAX_LIST, Compare, GetOp, KeyValue, Op, Page, TxnResult, Watch
from agola_core.errors import ForbiddenError


class Readable(Protocol):
    """The reading half of a coordinator (see `agola_core.coordinator.port.Coordinator`)."""

    def identity(self) -> str:
        """Return its own id."""

    def get(self, key: str) -> KeyValue | None:
        """Return a key."""

    def list(self, prefix: str, *, start_after: str = "", limit: int = MAX_LIST, revision: int = 0) -> Page:
        """Return keys."""

    def watch(self, prefix: str, from_revision: int) -> Watch:
        """Start a watch."""

    def close(self) -> None:
        """Release everything."""


class ReadOnlyCoordinator:
    """Delegates reads to a coordinator; everything else raises `ForbiddenError`.

    Args:
        readable: The coordinator.
    """

    max_txn_ops = 100_000
    max_txn_bytes = 1 << 20

    def __init__(self, readable: Readable) -> None:
        self.identity = readable.identity
        self.get = readable.get
        self.list = readable.list
        self.watch = readable.watch
        self.close = readable.close

    def txn(self, compare: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[GetOp] = ()) -> TxnResult:
        """Refuse it."""
        del compare, then, otherwise
        refuse()

    def grant_lease(self, ttl: float) -> int:
        """Refuse it."""
        del ttl
        refuse()

    def keep_alive(self, lease: int) -> float:
        """Refuse it."""
        del lease
        refuse()

    def revoke_lease(self, lease: int) -> None:
        """Refuse it."""
        del lease
        refuse()

    def compact(self, revision: int) -> None:
        """Refuse it."""
        del revision
        refuse()


def refuse() -> NoReturn:
    """Raise `ForbiddenError`."""
    raise ForbiddenError("the store was opened to be read only")
