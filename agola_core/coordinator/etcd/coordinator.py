"""The etcd coordinator: reads, transactions and leases, on top of `client`; watches are in `watch_stream`."""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Sequence
from typing import Any

from agola_core.coordinator.etcd import messages as rpc
from agola_core.coordinator.etcd.client import EtcdClient
from agola_core.coordinator.etcd.errors import COMPACTED, FUTURE, LEASE_EXISTS, TOO_LARGE_ANSWER
from agola_core.coordinator.etcd.keys import Keyspace
from agola_core.coordinator.etcd.marks import Applied, Marks
from agola_core.coordinator.etcd.settings import EtcdSettings, parse_url
from agola_core.coordinator.etcd.watch import EtcdWatch
from agola_core.coordinator.etcd.watch_stream import BEAT_SECONDS, WatchStream
from agola_core.coordinator.port import (
    MAX_LIST,
    Compare,
    DeleteOp,
    DeleteRangeOp,
    GetOp,
    KeyValue,
    Op,
    Page,
    PutOp,
    Target,
    TxnResult,
    check_ops,
    check_reads,
)
from agola_core.errors import BadRequestError, CompactedError, NotFoundError, OutOfSpaceError, UnavailableError
from agola_core.runtime.processes.forks import fork_safe
from agola_core.runtime.threads.supervisor import Supervisor

_LARGEST_LEASE = 2**63 - 1

_TARGETS = {
    Target.VERSION: (0, "version"),
    Target.CREATE_REVISION: (1, "create_revision"),
    Target.MOD_REVISION: (2, "mod_revision"),
    Target.VALUE: (3, "value"),
}


class EtcdCoordinator:
    """A coordinator on etcd (see `agola_core.coordinator.port.Coordinator`).

    Args:
        where: A URL (see `settings.parse_url`), or the settings themselves.

    Raises:
        BadRequestError: The URL is malformed.
        UnavailableError: No member of the cluster answers within the timeout.
        AuthenticationError: The user or the password is wrong.
    """

    max_txn_ops = 127
    max_txn_bytes = 1_400_000

    def __init__(self, where: str | EtcdSettings) -> None:
        settings = parse_url(where) if isinstance(where, str) else where
        self._client = EtcdClient(settings)
        self._keys = Keyspace(settings.prefix)
        self._marks = Marks(self._client)
        self._watches = WatchStream(self._client, self._keys)
        self._lock = fork_safe(threading.Lock())
        self._closed = False
        self._supervisor = Supervisor("etcd-coordinator")
        self._supervisor.loop("beat", self._watches.beat, interval=BEAT_SECONDS)

    def __repr__(self) -> str:
        """Return the class, the endpoints and the prefix."""
        settings = self._client.settings
        return f"EtcdCoordinator({','.join(settings.endpoints)!r}, {settings.prefix.decode(errors='replace')!r})"

    # Reads

    def identity(self) -> str:
        """Return the cluster's id and the prefix (see the port); etcd derives the id from its members' addresses."""
        return f"etcd {self._client.cluster():016x}/{self._client.settings.prefix.decode(errors='replace')}"

    def get(self, key: str) -> KeyValue | None:
        """Return the newest state of a key (see the port)."""
        found = self._client.ask(rpc.RANGE, rpc.RangeRequest(key=self._keys.encode(key))).kvs
        return self._keys.item(found[0]) if found else None

    def list(self, prefix: str, *, start_after: str = "", limit: int = MAX_LIST, revision: int = 0) -> Page:
        """Return keys that begin with a prefix (see the port)."""
        limit = min(limit, MAX_LIST)
        if limit < 1:
            raise BadRequestError(f"a list's limit must be at least 1, not {limit}")
        start, end = self._keys.range(prefix, start_after)
        while True:
            request = rpc.RangeRequest(key=start, range_end=end, limit=limit, revision=revision)
            if start >= end:
                request = rpc.RangeRequest(key=start, range_end=start, limit=limit, revision=revision)
            try:
                answer = self._client.ask(rpc.RANGE, request)
            except BadRequestError as error:
                if COMPACTED in str(error):
                    oldest = self._oldest()
                    raise CompactedError(
                        f"revision {revision} was compacted; the oldest kept is {oldest}", oldest=oldest
                    ) from error
                if FUTURE in str(error):
                    raise BadRequestError(f"revision {revision} lies after the newest") from error
                raise
            except UnavailableError as error:
                if TOO_LARGE_ANSWER not in str(error) or limit == 1:
                    raise
                limit = max(1, limit // 8)  # a page of few, large values
                continue
            items = tuple(self._keys.item(found) for found in answer.kvs)
            return Page(items, revision or answer.header.revision, answer.more)

    def watch(self, prefix: str, from_revision: int) -> EtcdWatch:
        """Start a watch (see the port)."""
        self._client.check_usable()
        return self._watches.open(prefix, from_revision)

    # Writes

    def txn(self, compare: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[GetOp] = ()) -> TxnResult:
        """Run a transaction (see the port)."""
        check_ops(then, self.max_txn_ops, self.max_txn_bytes)
        check_reads(otherwise, self.max_txn_ops)
        if len(compare) > self.max_txn_ops:
            raise BadRequestError(f"{len(compare)} comparisons are more than the {self.max_txn_ops} of a transaction")
        conditions = [self._compare(item) for item in compare]
        success, failure = [self._op(op) for op in then], [self._op(op) for op in otherwise]
        if all(type(op) is GetOp or (not compare and type(op) is not PutOp) for op in then):  # idempotent
            request = rpc.TxnRequest(compare=conditions, success=success, failure=failure)
            answer = self._client.ask(rpc.TXN, request)
            outcome = Applied(answer.header.revision, answer.succeeded, tuple(answer.responses))
        else:
            outcome = self._marks.send(conditions, success, failure)
        responses = self._answers_of(success, outcome.revision) if outcome.responses is None else outcome.responses
        reads: list[KeyValue | None] = []
        deleted = 0
        for response in responses:
            match response.WhichOneof("response"):
                case "response_range":
                    found = response.response_range.kvs
                    reads.append(self._keys.item(found[0]) if found else None)
                case "response_delete_range":
                    deleted += response.response_delete_range.deleted
        return TxnResult(outcome.succeeded, outcome.revision, tuple(reads), deleted)

    def _answers_of(self, success: Sequence[Any], revision: int) -> Sequence[Any]:
        """Return the results of an applied transaction's reads and deletions, from the cluster's history."""
        answers = []
        for index, op in enumerate(success):
            kind = op.WhichOneof("request")
            if kind == "request_range":
                key = op.request_range.key
                before = any(_writes(later, key) for later in success[index + 1 :])
                request = rpc.RangeRequest(key=key, revision=revision - 1 if before else revision)
                answers.append(rpc.ResponseOp(response_range=self._client.ask(rpc.RANGE, request)))
            elif kind == "request_delete_range":
                going = op.request_delete_range
                request = rpc.RangeRequest(
                    key=going.key, range_end=going.range_end, revision=revision - 1, count_only=True
                )
                count = self._client.ask(rpc.RANGE, request).count
                answers.append(rpc.ResponseOp(response_delete_range=rpc.DeleteRangeResponse(deleted=count)))
        return answers

    def compact(self, revision: int) -> None:
        """Discard the history before a revision (see the port).

        Compacts one revision less: exactly at its compacted revision etcd loses deletions.
        """
        if revision <= 2:
            return
        try:
            self._client.ask(rpc.COMPACT, rpc.CompactionRequest(revision=revision - 1))
        except BadRequestError as error:
            if FUTURE in str(error):
                raise BadRequestError(f"revision {revision} lies after the newest") from error
            if COMPACTED not in str(error):
                raise
        self._marks.sweep()

    # Leases

    def grant_lease(self, ttl: float) -> int:
        """Create a lease (see the port); etcd rounds up to whole seconds, and to about two election timeouts."""
        if ttl <= 0:
            raise BadRequestError(f"a lease's time must be positive, not {ttl}")
        lease = secrets.randbelow(_LARGEST_LEASE) + 1  # chosen here, so that a repeated request grants only one lease
        try:
            self._client.ask(rpc.LEASE_GRANT, rpc.LeaseGrantRequest(ID=lease, TTL=math.ceil(ttl)))
        except BadRequestError as error:
            if LEASE_EXISTS not in str(error):
                raise
        except OutOfSpaceError:  # etcd also reports this for leases that it has granted
            if not self.keep_alive(lease):
                raise
        return lease

    def keep_alive(self, lease: int) -> float:
        """Renew a lease (see the port)."""
        answer = self._client.ask(rpc.LEASE_KEEP_ALIVE, rpc.LeaseKeepAliveRequest(ID=lease))
        return max(float(answer.TTL), 0.0)

    def revoke_lease(self, lease: int) -> None:
        """Revoke a lease (see the port)."""
        try:
            self._client.ask(rpc.LEASE_REVOKE, rpc.LeaseRevokeRequest(ID=lease))
        except NotFoundError:
            return

    def close(self) -> None:
        """Release all resources (see the port)."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._marks.close()
        self._client.closing.set()  # ends waiting requests
        self._supervisor.stop()
        self._watches.close()  # the stream must end before its connection
        self._client.close()

    # Helpers

    def _compare(self, item: Compare) -> Any:
        number, field = _TARGETS[item.target]
        return rpc.Compare(result=0, target=number, key=self._keys.encode(item.key), **{field: item.expected})

    def _op(self, op: Op) -> Any:
        key = self._keys.encode(op.key)
        match op:
            case PutOp():
                return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=op.value, lease=op.lease))
            case DeleteOp():
                return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
            case DeleteRangeOp():
                end = self._keys.encode(op.end)
                return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key, range_end=end))
            case GetOp():
                return rpc.RequestOp(request_range=rpc.RangeRequest(key=key))

    def _oldest(self) -> int:
        """Return the oldest kept revision, which etcd reports only to a watch that starts at an older one."""
        with self.watch("", 1) as watch:
            try:
                watch.next(1.0)
            except CompactedError as error:
                return int(error.oldest)
        return 1


def _writes(op: Any, key: bytes) -> bool:
    """Return whether an operation writes or deletes a key."""
    kind = op.WhichOneof("request")
    if kind == "request_delete_range":
        going = op.request_delete_range
        return bool(going.key <= key < going.range_end if going.range_end else going.key == key)
    return bool(kind == "request_put" and op.request_put.key == key)
