"""What a coordinator is: revisioned keys with compare-and-transact, watches and leases.

The semantics are etcd's. Keys are text, values bytes. One revision, a number that rises by one with every
transaction that changes anything, orders all changes; every key remembers the revisions of its creation and of
its last change. The contract suite `tests/contract/test_coordinator.py` is the second half of this port and
runs on every backend.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from agola_core.errors import BadRequestError

MAX_LIST = 1000
"""The most keys that one page of `Coordinator.list` holds."""


class KeyValue(NamedTuple):
    """A key as it stood at some revision.

    Attributes:
        key: The key.
        value: Its value.
        create_revision: The revision that created it (a deleted and recreated key starts anew).
        mod_revision: The revision of its last change.
        version: How many times it was written since its creation, from 1.
        lease: The id of the lease it lives under; 0 for none.
    """

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class Target(enum.StrEnum):
    """What of a key a `Compare` looks at. A missing key has 0 for each number and no value."""

    CREATE_REVISION = "create_revision"
    MOD_REVISION = "mod_revision"
    VERSION = "version"
    VALUE = "value"


class Compare(NamedTuple):
    """A condition of a transaction: the target of `key` equals `expected`.

    Attributes:
        key: The key looked at.
        expected: The number, or the bytes for `Target.VALUE` (never equal on a missing key).
        target: What is compared.
    """

    key: str
    expected: int | bytes
    target: Target = Target.MOD_REVISION


class PutOp(NamedTuple):
    """Write a key. `lease` 0 detaches it from any lease."""

    key: str
    value: bytes
    lease: int = 0


class DeleteOp(NamedTuple):
    """Delete a key; deleting a missing one changes nothing."""

    key: str


class DeleteRangeOp(NamedTuple):
    """Delete every key from `key` up to before `end`, in byte order; `end` sorts after `key`."""

    key: str
    end: str


class GetOp(NamedTuple):
    """Read a key as it stands inside the transaction, after the operations before it."""

    key: str


Op = PutOp | DeleteOp | DeleteRangeOp | GetOp


class TxnResult(NamedTuple):
    """What a transaction did.

    Attributes:
        succeeded: Whether all comparisons held, so that `then` ran; otherwise `otherwise` did.
        revision: The coordinator's revision after the transaction; all its writes carry it.
        reads: What its `GetOp` operations read, in their order.
        deleted: How many keys its deletions removed.
    """

    succeeded: bool
    revision: int
    reads: tuple[KeyValue | None, ...] = ()
    deleted: int = 0


class Page(NamedTuple):
    """A part of a list.

    Attributes:
        items: In the byte order of their keys.
        revision: The revision at which the list was read; pass it on to read further pages of the same state.
        more: Whether keys follow after the last item.
    """

    items: tuple[KeyValue, ...]
    revision: int
    more: bool


class WatchEvent(NamedTuple):
    """One key's change: `item` after a put, None after a delete or the end of its lease."""

    key: str
    item: KeyValue | None


class WatchBatch(NamedTuple):
    """All changes of one revision below a watch's prefix; a revision is never split.

    Attributes:
        revision: The revision of the changes.
        events: In the order of the transaction's operations.
    """

    revision: int
    events: tuple[WatchEvent, ...]


class Watch(Protocol):
    """A running watch. Closing it, from any thread, ends a waiting `next`. A context manager."""

    def next(self, timeout: float | None = None) -> WatchBatch | None:
        """Return the next batch, in revision order, none lost or repeated.

        Args:
            timeout: Seconds to wait; None waits until something comes.

        Returns:
            The batch; None when the time is over.

        Raises:
            CompactedError: The next revision was compacted away: list anew, watch from there.
            UnavailableError: The backend was lost and the watch cannot go on.
            RecoveryError: The backend is another one now, or its files are gone.
            ClosedError: The watch or its coordinator was closed.
        """

    def close(self) -> None:
        """End the watch; closing twice is harmless."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Coordinator(Protocol):
    """The port. Thread-safe. Every method may raise `UnavailableError`, `DeadlineError` and `ClosedError`.

    Attributes:
        max_txn_ops: The most operations that one transaction holds.
        max_txn_bytes: The most bytes of keys and values that one transaction holds.
    """

    max_txn_ops: int
    max_txn_bytes: int

    def identity(self) -> str:
        """Return what tells this coordinator from all others: where it is moved to, or restored, may change it."""

    def get(self, key: str) -> KeyValue | None:
        """Return the newest state of a key; None when it does not exist. Linearizable."""

    def list(self, prefix: str, *, start_after: str = "", limit: int = MAX_LIST, revision: int = 0) -> Page:
        """Return keys that begin with a prefix, in byte order.

        Args:
            prefix: "" for all keys.
            start_after: Only keys that sort after this one.
            limit: The most items to return, at most `MAX_LIST`.
            revision: The state to read; 0 for the newest.

        Raises:
            CompactedError: The revision is older than what is kept.
            BadRequestError: The revision lies in the future.
        """

    def txn(self, compare: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[GetOp] = ()) -> TxnResult:
        """Run `then` when every comparison holds, else read `otherwise`; all or nothing, at one revision.

        Once it returns, what it wrote is durable. A key is written at most once in a transaction. Whatever error it
        ends in but `UnknownOutcomeError`, it was not applied and never will be: where an answer is lost, or may be
        untrue, the backend reads what became of the transaction before it says anything.

        Raises:
            BadRequestError: A key written twice, too many operations or bytes.
            NotFoundError: A put names a lease that does not exist (or has ended).
            UnknownOutcomeError: The backend could not be read in time: the transaction may have been applied.
            RecoveryError: The backend is another one now, or its files are gone.
        """

    def watch(self, prefix: str, from_revision: int) -> Watch:
        """Start a watch of the keys that begin with a prefix.

        Args:
            prefix: "" for all keys.
            from_revision: The first revision to report; one more than a list's revision misses nothing.
        """

    def grant_lease(self, ttl: float) -> int:
        """Create a lease and return its id, not 0; its keys are deleted when it ends.

        Args:
            ttl: Seconds until it ends unless it is kept alive; backends may round up to whole seconds.
        """

    def keep_alive(self, lease: int) -> float:
        """Renew a lease and return the seconds it is now good for; 0.0 when it has ended."""

    def revoke_lease(self, lease: int) -> None:
        """End a lease and delete its keys; revoking one that has ended is harmless."""

    def compact(self, revision: int) -> None:
        """Forget the history before a revision: older lists and watches raise `CompactedError`.

        Backends may keep the one revision before it, too. What the revision itself changed is kept, deletions
        included.
        """

    def close(self) -> None:
        """Release everything; running watches end. Closing twice is harmless."""


def check_ops(ops: Sequence[Op], most: int, most_bytes: int) -> None:
    """Raise `BadRequestError` for operations that one transaction cannot hold.

    Args:
        ops: The operations.
        most: How many a transaction holds.
        most_bytes: How many bytes of keys and values it holds.
    """
    written: set[str] = set()
    ranges: list[DeleteRangeOp] = []
    writes = size = 0
    for op in ops:
        if type(op) is PutOp or type(op) is DeleteOp:
            writes += 1
            key = op[0]
            written.add(key)
            size += len(key) + len(op[1]) if type(op) is PutOp else len(key)
        elif type(op) is DeleteRangeOp:
            ranges.append(op)
    if writes != len(written):
        twice, _ = Counter(op.key for op in ops if type(op) in {PutOp, DeleteOp}).most_common(1)[0]
        raise BadRequestError(f"key {twice!r} is written twice in one transaction")
    if ranges:
        _check_ranges(ranges, written)
    if len(ops) > most:
        raise BadRequestError(f"{len(ops)} operations are more than the {most} of a transaction")
    if size > most_bytes:
        raise BadRequestError(f"{size} bytes are more than the {most_bytes} of a transaction")


def check_reads(ops: Sequence[GetOp], most: int) -> None:
    """Raise `BadRequestError` for what a transaction cannot do when its comparisons do not hold.

    Args:
        ops: The operations.
        most: How many a transaction holds.
    """
    if any(type(op) is not GetOp for op in ops):
        raise BadRequestError("a transaction whose comparisons do not hold only reads")
    if len(ops) > most:
        raise BadRequestError(f"{len(ops)} operations are more than the {most} of a transaction")


def _check_ranges(ranges: list[DeleteRangeOp], written: set[str]) -> None:
    for start, end in ranges:
        if start >= end:
            raise BadRequestError(f"a range of keys cannot begin at {start!r} and end before {end!r}")
        if twice := [key for key in written if start <= key < end]:
            raise BadRequestError(f"key {twice[0]!r} is written twice in one transaction")
    ordered = sorted(ranges)
    for one, other in pairwise(ordered):
        if other.key < one.end:
            raise BadRequestError(f"key {other.key!r} is written twice in one transaction")


def iterate(coordinator: Coordinator, prefix: str, *, start_after: str = "", revision: int = 0) -> Iterator[KeyValue]:
    """Yield every key below a prefix, page by page, at one fixed revision.

    Args:
        coordinator: Where to read.
        prefix: "" for all keys.
        start_after: Only keys that sort after this one.
        revision: The state to read; 0 for the newest at the first page.
    """
    while True:
        page = coordinator.list(prefix, start_after=start_after, revision=revision)
        yield from page.items
        if not page.more:
            return
        start_after, revision = page.items[-1].key, page.revision


def prefix_end(prefix: str) -> str:
    """Return the smallest text that sorts, in UTF-8, after every key with this prefix; "" when there is none."""
    for index in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[index]) + 1
        if point == 0xD800:  # surrogates have no UTF-8 form
            point = 0xE000
        if point <= 0x10FFFF:
            return prefix[:index] + chr(point)
    return ""
