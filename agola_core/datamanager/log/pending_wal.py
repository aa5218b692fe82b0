"""A WAL on its way: what its writer wants committed, with what it saw, and then what came of it."""

from __future__ import annotations

from collections.abc import Sequence as Items

import msgspec

from agola_core.coordinator.port import Compare, DeleteRangeOp, Op, PutOp
from agola_core.datamanager.format.records import PayloadRef
from agola_core.datamanager.types import Action, ChangeGroupsToken
from agola_core.errors import BadRequestError
from agola_core.runtime.leader_queue import Waiting

_NO_TOKEN = ChangeGroupsToken()


class Along(msgspec.Struct, frozen=True):
    """What a layer above commits in the transaction of its WAL, on keys of its own.

    Attributes:
        ops: Applied together with the WAL, or not at all.
        guards: Comparisons of revisions; when one fails, so does the WAL, with `ConflictError`.

    Raises:
        BadRequestError: One of the operations deletes a range.
    """

    ops: tuple[Op, ...] = ()
    guards: tuple[Compare, ...] = ()

    def __post_init__(self) -> None:
        """Refuse ranges: commits that share a transaction are told apart by single keys."""
        if any(isinstance(op, DeleteRangeOp) for op in self.ops):
            raise BadRequestError("a range of keys cannot be deleted along with a WAL")

    def keys(self) -> set[str]:
        """Return the keys that are written or compared."""
        return {op.key for op in self.ops} | {guard.key for guard in self.guards}


_NOTHING = Along()


class Commit(Waiting):
    """One WAL on its way: what is to be committed, and then what came of it.

    Args:
        actions: What the WAL does.
        encoded: The actions as they are stored; b"" when `payload` has them.
        payload: Where the actions of a large WAL lie.
        token: What its writer saw.
        wal_id: The id given by the writer, or made up.
        remembered: Whether the id was given, so that its outcome is kept for retries.
        digest: Of the encoded actions, for a given id.
        lineage: The lineage its writer saw.
        along: What a layer above commits with it.
        collected: The last collection of payloads before its payload was written (see `Log.collected`).
        payload_lost: Whether it was not committed because a later collection may have taken its payload.

    Attributes:
        unconditional: Whether nothing but the log's head decides on it.
        ops: How many operations of a transaction it takes.
        size: About how many bytes of a transaction it takes.
    """

    __slots__ = (
        "actions",
        "along",
        "collected",
        "digest",
        "encoded",
        "groups",
        "lineage",
        "ops",
        "outcome",
        "payload",
        "payload_lost",
        "remembered",
        "sequence",
        "size",
        "token",
        "unconditional",
        "wal_id",
    )

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
        along: Along | None = None,
        collected: int = 0,
    ) -> None:
        super().__init__()
        self.collected = collected
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
        self.along = along if along is not None else _NOTHING
        self.unconditional = token is None and not remembered and along is None and payload is None
        self.outcome: ChangeGroupsToken | None = None
        self.ops = 1
        self.size = len(encoded) + len(wal_id) + 256
        if not self.unconditional:
            self.ops += len(self.groups) + remembered + max(len(self.along.ops), len(self.along.guards))
            self.size += 256 * self.ops + 2 * sum(map(len, self.groups))
            self.size += sum(len(op.value) for op in self.along.ops if isinstance(op, PutOp))

    def settle(self, outcome: ChangeGroupsToken | None, error: Exception | None = None) -> None:
        """Note what came of it."""
        self.outcome, self.error, self.done = outcome, error, True


def check_limits(commit: Commit, max_ops: int) -> None:
    """Raise `BadRequestError` for a WAL that no transaction of this coordinator can hold."""
    if not commit.unconditional and commit.ops + 1 > max_ops:
        raise BadRequestError(
            f"{commit.ops} operations, a commit's change groups among them, are more than it can hold"
        )
