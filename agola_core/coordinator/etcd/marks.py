"""Sends transactions to etcd so that their outcome can always be determined: each also writes a mark.

A mark is a key of this client that one transaction at a time uses. The transaction compares the mark's revision and
writes its own number into it, so the mark tells whether it was applied, and at which revision. If the answer is lost,
or etcd answers "database space exceeded" (which it also does for transactions that it has applied), the mark is
deleted under a compare of the same revision. If that succeeds, the transaction was not applied and never will be; if
it fails, the mark tells that it was applied. A full etcd still accepts deletions.

The marks of crashed clients are deleted by other clients, after so long that nobody can still be waiting for one of
their transactions (see `Marks.sweep`). Keys of marks are not UTF-8, so they are in no list, range or watch of a store.
"""

from __future__ import annotations

import logging
import threading
import uuid
from typing import Any, NamedTuple

from agola_core.coordinator.etcd import messages as rpc
from agola_core.coordinator.etcd.client import EtcdClient
from agola_core.errors import (
    AgolaError,
    ClosedError,
    OutOfSpaceError,
    UnavailableError,
    UnknownOutcomeError,
)
from agola_core.runtime.clock import boot_clock
from agola_core.runtime.processes.forks import fork_safe

logger = logging.getLogger(__name__)

MARKS = b"\xffmarks/"
"""Prefix of the keys of marks, after the store's prefix."""

_SETTLE_SECONDS = 30.0
_SETTLE_PAUSE = 0.1
_SWEEP_SECONDS = 600.0
_SWEPT_AT_ONCE = 100
_CLOSE_SECONDS = 1.0
_EQUAL, _MOD_REVISION = 0, 2


class _Mark:
    """A key that one transaction at a time writes.

    Attributes:
        key: The key in etcd; never reused after its deletion.
        revision: Revision of its last change.
        number: Number of the last transaction that used it.
    """

    def __init__(self, key: bytes, revision: int) -> None:
        self.key = key
        self.revision = revision
        self.number = 0


class Applied(NamedTuple):
    """Outcome of a transaction that reached etcd.

    Attributes:
        revision: The cluster's revision after it.
        succeeded: Whether its comparisons held.
        responses: etcd's answers to its operations; None if it was applied but the answers were lost.
    """

    revision: int
    succeeded: bool
    responses: tuple[Any, ...] | None


class Marks:
    """Sends the transactions of one client.

    Args:
        client: The connection.
    """

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self._prefix = client.settings.prefix + MARKS
        self._own = self._prefix + uuid.uuid4().hex.encode() + b"/"
        self._lock = fork_safe(threading.Lock())
        self._free: list[_Mark] = []
        self._made = 0
        self._seen: dict[bytes, tuple[int, float]] = {}

    def send(self, compare: list[Any], success: list[Any], failure: list[Any]) -> Applied:
        """Run a transaction exactly once.

        Args:
            compare: Its comparisons.
            success: Operations to run if they hold.
            failure: Reads to run if they do not.

        Raises:
            UnknownOutcomeError: Its outcome could not be determined in time.
            UnavailableError: It was not applied and never will be.
        """
        deadline = boot_clock() + self._client.settings.timeout
        try:
            while True:
                mark = self._take()
                outcome = self._try(mark, compare, success, failure, deadline)
                if outcome is not None:
                    return outcome
        except OutOfSpaceError:
            if any(op.WhichOneof("request") == "request_put" for op in success):
                raise
        # A full etcd accepts deletions, but no new mark.
        answer = self._client.send(rpc.TXN, rpc.TxnRequest(compare=compare, success=success, failure=failure))
        return Applied(answer.header.revision, answer.succeeded, tuple(answer.responses))

    def _try(
        self, mark: _Mark, compare: list[Any], success: list[Any], failure: list[Any], deadline: float
    ) -> Applied | None:
        """Send a transaction with a mark; return None if it was not applied and may be sent again."""
        mark.number += 1
        unmoved = _unmoved(mark)
        number = rpc.RequestOp(request_put=rpc.PutRequest(key=mark.key, value=b"%d" % mark.number))
        look = rpc.RequestOp(request_range=rpc.RangeRequest(key=mark.key))
        request = rpc.TxnRequest(compare=[unmoved, *compare], success=[number, *success], failure=[look, *failure])
        sent = boot_clock()
        try:
            answer = self._client.send(rpc.TXN, request, max(deadline - sent, 0.1))
        except UnknownOutcomeError as error:
            return self._settled(mark, error, sent, deadline)
        except AgolaError:  # it was not applied: the mark is as it was
            self._give_back(mark)
            raise
        if answer.succeeded:
            mark.revision = answer.header.revision
        else:
            found = answer.responses[0].response_range.kvs
            if not found or found[0].mod_revision != mark.revision:
                return None  # the mark was swept before: nothing was done
        self._give_back(mark)
        return Applied(answer.header.revision, answer.succeeded, tuple(answer.responses[1:]))

    def _settled(self, mark: _Mark, error: UnknownOutcomeError, sent: float, deadline: float) -> Applied | None:
        revision = self._settle(mark, error, sent)
        if revision:
            mark.revision = revision
            self._give_back(mark)
            return Applied(revision, True, None)
        if isinstance(error.__cause__, OutOfSpaceError):
            raise error.__cause__
        if boot_clock() >= deadline:
            self._client.out_of_time(self._client.settings.timeout, error.__cause__)
        return None

    def _settle(self, mark: _Mark, error: UnknownOutcomeError, sent: float) -> int:
        """Return the revision of a transaction that was sent; 0 if it was not applied and never will be."""
        request = rpc.TxnRequest(
            compare=[_unmoved(mark)],
            success=[rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=mark.key))],
            failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=mark.key))],
        )
        deadline = boot_clock() + _SETTLE_SECONDS
        while True:
            try:
                answer = self._client.ask(rpc.TXN, request)
                break
            except ClosedError:
                raise error from error.__cause__
            except UnavailableError:
                if boot_clock() >= deadline:
                    raise error from error.__cause__
                logger.warning("waiting for etcd to learn a transaction's outcome", exc_info=True)
                self._client.closing.wait(_SETTLE_PAUSE)
        if answer.succeeded:
            return 0
        found = answer.responses[0].response_range.kvs
        if found and found[0].value == b"%d" % mark.number:
            return int(found[0].mod_revision)
        if not found and boot_clock() - sent < _SWEEP_SECONDS / 2:  # deleted above, by an attempt whose answer was lost
            return 0
        raise error from error.__cause__

    # The marks

    def _take(self) -> _Mark:
        """Return an unused mark; create one if there is none."""
        with self._lock:
            if self._free:
                return self._free.pop()
            self._made += 1
            key = self._own + b"%d" % self._made
        request = rpc.TxnRequest(
            compare=[_unmoved(_Mark(key, 0))],
            success=[rpc.RequestOp(request_put=rpc.PutRequest(key=key))],
            failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=key))],
        )
        answer = self._client.ask(rpc.TXN, request)
        if answer.succeeded:
            return _Mark(key, answer.header.revision)
        return _Mark(
            key, answer.responses[0].response_range.kvs[0].mod_revision
        )  # created by an attempt whose answer was lost

    def _give_back(self, mark: _Mark) -> None:
        with self._lock:
            self._free.append(mark)

    def sweep(self) -> None:
        """Delete the marks of other clients that have not changed while this process watched them for ten minutes.

        A live client creates a new one. A transaction that is still in flight with a deleted mark is not applied, and
        its sender, if it is still waiting, reports an unknown outcome.
        """
        now = boot_clock()
        end = self._prefix[:-1] + bytes([self._prefix[-1] + 1])
        found = self._client.ask(rpc.RANGE, rpc.RangeRequest(key=self._prefix, range_end=end, keys_only=True)).kvs
        seen = {
            kv.key: self._seen[kv.key]
            if self._seen.get(kv.key, (0, 0.0))[0] == kv.mod_revision
            else (kv.mod_revision, now)
            for kv in found
            if not kv.key.startswith(self._own)
        }
        going = [(key, revision) for key, (revision, since) in seen.items() if now - since > _SWEEP_SECONDS]
        for start in range(0, len(going), _SWEPT_AT_ONCE):
            part = [_Mark(*one) for one in going[start : start + _SWEPT_AT_ONCE]]
            deletions = [rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=mark.key)) for mark in part]
            self._client.ask(rpc.TXN, rpc.TxnRequest(compare=[_unmoved(mark) for mark in part], success=deletions))
        self._seen = seen

    def close(self) -> None:
        """Delete this client's marks, if etcd answers."""
        with self._lock:
            going, self._free = self._free, []
        if not going or not self._client.answers:
            return
        end = self._own[:-1] + bytes([self._own[-1] + 1])
        deletion = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=self._own, range_end=end))
        if not self._client.try_once(rpc.TXN, rpc.TxnRequest(success=[deletion]), _CLOSE_SECONDS):
            logger.debug("the marks of a closed coordinator remain until they are swept")


def _unmoved(mark: _Mark) -> Any:
    return rpc.Compare(result=_EQUAL, target=_MOD_REVISION, key=mark.key, mod_revision=mark.revision)
