"""The coordinator port: revisioned keys with compare-and-set transactions, watches and leases.

The semantics are those of etcd. Keys are text, values are bytes. A global revision, incremented by every transaction
that changes anything, orders all changes; each key records the revisions of its creation and of its last change. The
contract suite `tests/contract/test_coordinator.py` is the second half of this port and runs on every backend.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Protocol, Self

import msgspec

from agola_core.errors import BadRequestError

MAX_LIST = 1000
"""Maximum number of keys in one page of `Coordinator.list`."""


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """A key and its value at some revision.

    Attributes:
        key: The key.
        value: Its value.
        create_revision: Revision that created the key (since its last deletion).
        mod_revision: Revision of its last change.
        version: Number of writes since its creation, from 1.
        lease: Id of the lease that the key is attached to; 0 for none.
    """

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class Target(enum.StrEnum):
    """The field that a `Compare` tests. On a missing key every number is 0 and there is no value."""

    CREATE_REVISION = "create_revision"
    MOD_REVISION = "mod_revision"
    VERSION = "version"
    VALUE = "value"


class Compare(msgspec.Struct, frozen=True, gc=False):
    """A condition of a transaction: the target of `key` equals `expected`.

    Attributes:
        key: The key to test.
        expected: The expected number, or bytes for `Target.VALUE` (never equal on a missing key).
        target: The field to compare.
    """

    key: str
    expected: int | bytes
    target: Target = Target.MOD_REVISION


class PutOp(msgspec.Struct, frozen=True, gc=False):
    """Write a key. `lease` 0 detaches it from any lease."""

    key: str
    value: bytes
    lease: int = 0


class DeleteOp(msgspec.Struct, frozen=True, gc=False):
    """Delete a key; deleting a missing key changes nothing."""

    key: str


class DeleteRangeOp(msgspec.Struct, frozen=True, gc=False):
    """Delete the keys from `key` (inclusive) to `end` (exclusive), in byte order; `end` sorts after `key`."""

    key: str
    end: str


class GetOp(msgspec.Struct, frozen=True, gc=False):
    """Read a key inside the transaction, after the operations that precede this one."""

    key: str


Op = PutOp | DeleteOp | DeleteRangeOp | GetOp


class TxnResult(msgspec.Struct, frozen=True, gc=False):
    """Result of a transaction.

    Attributes:
        succeeded: Whether all comparisons held, so that `then` ran and not `otherwise`.
        revision: The coordinator's revision after the transaction, and that of all its writes.
        reads: Results of its `GetOp` operations, in order.
        deleted: Number of keys that were deleted.
    """

    succeeded: bool
    revision: int
    reads: tuple[KeyValue | None, ...] = ()
    deleted: int = 0


class Page(msgspec.Struct, frozen=True, gc=False):
    """One page of a list.

    Attributes:
        items: In the byte order of their keys.
        revision: Revision at which the page was read; pass it on to read further pages of the same state.
        more: Whether more keys follow the last item.
    """

    items: tuple[KeyValue, ...]
    revision: int
    more: bool


class WatchEvent(msgspec.Struct, frozen=True, gc=False):
    """A change of one key: `item` after a put, None after a deletion or the expiry of its lease."""

    key: str
    item: KeyValue | None


class WatchBatch(msgspec.Struct, frozen=True, gc=False):
    """All changes of one revision under a watch's prefix; a revision is never split.

    Attributes:
        revision: The revision of the changes.
        events: The changes, in the order of the transaction's operations.
    """

    revision: int
    events: tuple[WatchEvent, ...]


class Watch(Protocol):
    """A running watch; a context manager. Closing it, from any thread, ends a blocked `next`."""

    def next(self, timeout: float | None = None) -> WatchBatch | None:
        """Return the next batch, in revision order; none is lost or repeated.

        Args:
            timeout: Seconds to wait; None waits indefinitely.

        Returns:
            The batch; None on timeout.

        Raises:
            CompactedError: The next revision was compacted: list the keys again and watch from that revision.
            UnavailableError: The backend is gone and the watch cannot resume.
            RecoveryError: The backend was replaced, or its files are gone.
            ClosedError: The watch or its coordinator was closed.
        """

    def close(self) -> None:
        """End the watch; closing it twice is harmless."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Coordinator(Protocol):
    """The coordinator port. Thread-safe. Every method may raise `UnavailableError`, `DeadlineError` and `ClosedError`.

    Attributes:
        max_txn_ops: Maximum number of operations in a transaction.
        max_txn_bytes: Maximum total size of a transaction's keys and values, in bytes.
    """

    max_txn_ops: int
    max_txn_bytes: int

    def identity(self) -> str:
        """Return an id that is unique to this coordinator; moving or restoring the coordinator may change it."""

    def get(self, key: str) -> KeyValue | None:
        """Return the newest state of a key; None if it does not exist. Linearizable."""

    def list(self, prefix: str, *, start_after: str = "", limit: int = MAX_LIST, revision: int = 0) -> Page:
        """Return a page of the keys with a prefix, in byte order.

        Args:
            prefix: "" for all keys.
            start_after: Only keys that sort after this one.
            limit: Maximum number of items, at most `MAX_LIST`.
            revision: The state to read; 0 for the newest.

        Raises:
            CompactedError: The revision has been compacted.
            BadRequestError: The revision lies in the future.
        """

    def txn(self, compare: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[GetOp] = ()) -> TxnResult:
        """Run `then` if every comparison holds, else the reads in `otherwise`; atomically, at one revision.

        When it returns, its writes are durable. A transaction writes each key at most once. After any error other than
        `UnknownOutcomeError` the transaction was not applied and never will be: if an answer is lost, or cannot be
        trusted, the backend reads back the outcome before it reports anything.

        Raises:
            BadRequestError: A key is written twice, or there are too many operations or bytes.
            NotFoundError: A put names a lease that does not exist or has expired.
            UnknownOutcomeError: The outcome could not be read back in time: the transaction may have been applied.
            RecoveryError: The backend was replaced, or its files are gone.
        """

    def watch(self, prefix: str, from_revision: int) -> Watch:
        """Start a watch on the keys with a prefix.

        Args:
            prefix: "" for all keys.
            from_revision: First revision to report; the revision of a list plus one misses nothing.
        """

    def grant_lease(self, ttl: float) -> int:
        """Create a lease and return its id (never 0); its keys are deleted when it expires.

        Args:
            ttl: Seconds until it expires unless it is renewed; backends may round up to whole seconds.
        """

    def keep_alive(self, lease: int) -> float:
        """Renew a lease and return the seconds until it expires; 0.0 if it has expired."""

    def revoke_lease(self, lease: int) -> None:
        """Revoke a lease and delete its keys; harmless if it has expired."""

    def compact(self, revision: int) -> None:
        """Discard the history before a revision: older lists and watches raise `CompactedError`.

        Backends may keep one earlier revision as well. The changes of the revision itself are kept, including
        deletions.
        """

    def close(self) -> None:
        """Release all resources and end running watches; closing twice is harmless."""


def check_ops(ops: Sequence[Op], most: int, most_bytes: int) -> None:
    """Raise `BadRequestError` for operations that do not fit into one transaction.

    Args:
        ops: The operations.
        most: Maximum number of operations.
        most_bytes: Maximum total size of keys and values.
    """
    written: set[str] = set()
    ranges: list[DeleteRangeOp] = []
    writes = size = 0
    for op in ops:
        if type(op) is PutOp or type(op) is DeleteOp:
            writes += 1
            key = op.key
            written.add(key)
            size += len(key) + len(op.value) if type(op) is PutOp else len(key)
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
    """Raise `BadRequestError` unless a transaction may run these operations when its comparisons fail.

    Args:
        ops: The operations.
        most: Maximum number of operations.
    """
    if any(type(op) is not GetOp for op in ops):
        raise BadRequestError("a transaction whose comparisons do not hold only reads")
    if len(ops) > most:
        raise BadRequestError(f"{len(ops)} operations are more than the {most} of a transaction")


def _check_ranges(ranges: list[DeleteRangeOp], written: set[str]) -> None:
    for one in ranges:
        start, end = one.key, one.end
        if start >= end:
            raise BadRequestError(f"a range of keys cannot begin at {start!r} and end before {end!r}")
        if twice := [key for key in written if start <= key < end]:
            raise BadRequestError(f"key {twice[0]!r} is written twice in one transaction")
    ordered = sorted(ranges, key=lambda one: one.key)
    for one, other in pairwise(ordered):
        if other.key < one.end:
            raise BadRequestError(f"key {other.key!r} is written twice in one transaction")


def iterate(coordinator: Coordinator, prefix: str, *, start_after: str = "", revision: int = 0) -> Iterator[KeyValue]:
    """Yield every key with a prefix, page by page, at a fixed revision.

    Args:
        coordinator: The coordinator to read.
        prefix: "" for all keys.
        start_after: Only keys that sort after this one.
        revision: The state to read; 0 for the newest when the first page is read.
    """
    while True:
        page = coordinator.list(prefix, start_after=start_after, revision=revision)
        yield from page.items
        if not page.more:
            return
        start_after, revision = page.items[-1].key, page.revision


def prefix_end(prefix: str) -> str:
    """Return the smallest text that sorts, in UTF-8, after every key with a prefix; "" if there is none."""
    for index in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[index]) + 1
        if point == 0xD800:  # surrogates have no UTF-8 form
            point = 0xE000
        if point <= 0x10FFFF:
            return prefix[:index] + chr(point)
    return ""
