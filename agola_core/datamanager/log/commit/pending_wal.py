"""A WAL that waits for its commit: what its writer wants and has seen, and then the outcome."""

from __future__ import annotations

from collections.abc import Sequence as Items

import msgspec

from agola_core.coordinator.port import Compare, DeleteRangeOp, Op, PutOp
from agola_core.datamanager.format.events import Event, QueryItem
from agola_core.datamanager.format.records import PayloadRef
from agola_core.datamanager.format.versions import Condition
from agola_core.datamanager.types import Action, ChangeGroupsToken
from agola_core.errors import BadRequestError
from agola_core.runtime.threads.leader_queue import Waiting

_NO_TOKEN = ChangeGroupsToken()


class StreamAppend(msgspec.Struct, frozen=True):
    """Events that follow each other.

    Attributes:
        stream: Their stream; "" for none.
        expected: The version that the stream must have; None for any.
        events: The events.
        sizes: How many events each of their batches has.
    """

    stream: str
    expected: int | None
    events: Items[Event]
    sizes: Items[int]


class EventsAppend(msgspec.Struct):
    """The events of a WAL and their conditions; afterwards it holds their positions.

    Attributes:
        appends: The events by stream, each stream once.
        conditions: No event after a position may match one of some items.
        ids: The ids that the writer gave to events, in their order.
        checked: Whether they have any condition.
        last: The position of the last event, once committed now or before.
        retried: Whether an older state of the log refused it, which may lack its own first commit.
    """

    appends: tuple[StreamAppend, ...]
    conditions: tuple[tuple[tuple[QueryItem, ...], int], ...] = ()
    ids: tuple[str, ...] = ()
    checked: bool = False
    last: int = 0
    retried: bool = False

    @property
    def count(self) -> int:
        """The number of events."""
        return sum(len(append.events) for append in self.appends)


class CoordinatorOps(msgspec.Struct, frozen=True):
    """Operations on a caller's own coordinator keys, committed in the same transaction as its WAL.

    Attributes:
        ops: Applied together with the WAL, or not at all.
        guards: Compared revisions: if one differs, the WAL is refused with `ConflictError`.

    Raises:
        BadRequestError: One of the operations deletes a range.
    """

    ops: tuple[Op, ...] = ()
    guards: tuple[Compare, ...] = ()

    def __post_init__(self) -> None:
        """Refuse ranges: WALs that share a transaction must not touch the same keys."""
        if any(isinstance(op, DeleteRangeOp) for op in self.ops):
            raise BadRequestError("a range of keys cannot be deleted along with a WAL")

    def keys(self) -> set[str]:
        """Return the keys that they write or compare."""
        return {op.key for op in self.ops} | {guard.key for guard in self.guards}


_NOTHING = CoordinatorOps()


class PendingWal(Waiting):
    """One WAL that waits for its commit; afterwards it holds the outcome.

    Args:
        actions: The WAL's actions.
        encoded: The actions as they are stored; b"" when they are in `payload`.
        payload: The stored actions of a large WAL.
        token: The change groups that its writer saw.
        wal_id: Its idempotency key, given by the writer, or a generated id.
        remembered: Whether the writer gave the id, so that the outcome is kept for retries.
        digest: The digest of the encoded actions, for a given id.
        lineage: The lineage that its writer saw.
        coordinator_ops: Operations committed in the same transaction.
        collected: The last collection of payloads before its payload was written (see `Log.collected`).
        events: The events among the actions, and their conditions.
        conditions: What must hold of objects before it.
        in_order: Whether it must not be committed before an earlier one of its batch.
        rechecked: Whether an older state of the log did not meet its conditions.
        payload_lost: Whether it was not committed because a later collection may have taken its payload, or that of
            one that it must not be committed before.

    Attributes:
        unconditional: Whether it commits unless the log's head has moved.
        ops: The number of operations that it adds to a transaction.
        size: About how many bytes it adds to a transaction.
    """

    def __init__(
        self,
        actions: Items[Action],
        encoded: bytes,
        payload: PayloadRef | None,
        token: ChangeGroupsToken | None,
        *,
        wal_id: str,
        remembered: bool,
        digest: str,
        lineage: str,
        coordinator_ops: CoordinatorOps | None = None,
        collected: int = 0,
        events: EventsAppend | None = None,
        conditions: tuple[Condition, ...] = (),
        in_order: bool = False,
    ) -> None:
        self.collected = collected
        self.events = events
        self.conditions = conditions
        self.in_order = in_order
        self.rechecked = False
        self.payload_lost = False
        self.actions = actions
        self.encoded = encoded
        self.payload = payload
        self.token = token if token is not None else _NO_TOKEN
        self.groups = tuple(self.token.groups)
        self.sequence = ""
        self.wal_id = wal_id
        self.remembered = remembered
        self.digest = digest
        self.lineage = lineage
        self.coordinator_ops = coordinator_ops if coordinator_ops is not None else _NOTHING
        self.unconditional = (
            token is None and not remembered and coordinator_ops is None and payload is None and not conditions
        )
        self.outcome: ChangeGroupsToken | None = None
        self.ops = 1
        self.size = len(encoded) + len(wal_id) + 256
        if not self.unconditional:
            extra = self.coordinator_ops
            self.ops += len(self.groups) + remembered + max(len(extra.ops), len(extra.guards))
            self.size += 256 * self.ops + 2 * sum(map(len, self.groups))
            self.size += sum([len(op.value) for op in extra.ops if isinstance(op, PutOp)])

    def settle(self, outcome: ChangeGroupsToken | None, error: Exception | None = None) -> None:
        """Set the outcome."""
        self.outcome, self.error, self.done = outcome, error, True


def check_limits(pending: PendingWal, max_ops: int) -> None:
    """Raise `BadRequestError` for a WAL that does not fit into one transaction of the coordinator."""
    if not pending.unconditional and pending.ops + 1 > max_ops:
        raise BadRequestError(
            f"{pending.ops} operations, a commit's change groups among them, are more than it can hold"
        )
