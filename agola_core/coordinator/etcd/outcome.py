"""Transactions on etcd whose outcome can always be found out: each writes a mark along with what it writes.

A mark is a key of this client's own that one transaction at a time uses. The transaction compares the mark's
revision and writes its own number into it, so afterwards the mark tells whether it was applied, and at which
revision. When the answer is lost, or etcd answers "database space exceeded" (which it says of transactions that it
has applied, too), the mark is deleted behind a compare of the same revision. That either succeeds, and then the
transaction was not applied and never will be, or fails, and then the mark says that it was. A deletion is possible
in a full etcd as well.

The marks of clients that died are deleted by others, after so long a time that no transaction of theirs is still
waited for (see `Marks.sweep`). Keys of marks are no UTF-8, so no list, range or watch of a store's keys has them.
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
from agola_core.runtime.forks import renewed

logger = logging.getLogger(__name__)

MARKS = b"\xffmarks/"
"""What the key of a mark begins with, after the store's prefix."""

_SETTLE_SECONDS = 30.0
_SETTLE_PAUSE = 0.1
_SWEEP_SECONDS = 600.0
_SWEPT_AT_ONCE = 100
_CLOSE_SECONDS = 1.0
_EQUAL, _MOD_REVISION = 0, 2


class _Mark:
    """A key that one transaction at a time writes.

    Attributes:
        key: Its key in etcd; never used again once it was deleted.
        revision: The revision of its last change.
        number: The number of the last transaction that used it.
    """

    def __init__(self, key: bytes, revision: int) -> None:
        self.key = key
        self.revision = revision
        self.number = 0


class Applied(NamedTuple):
    """What became of a transaction.

    Attributes:
        revision: The cluster's revision after it.
        succeeded: Whether its comparisons held.
        responses: etcd's answers to its operations; None when it was applied and the answers are lost.
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
        self._lock = renewed(threading.Lock())
        self._free: list[_Mark] = []
        self._made = 0
        self._seen: dict[bytes, tuple[int, float]] = {}

    def send(self, compare: list[Any], success: list[Any], failure: list[Any]) -> Applied:
        """Run a transaction, once.

        Args:
            compare: Its comparisons.
            success: What is done when they hold.
            failure: What is read when they do not.

        Raises:
            UnknownOutcomeError: Nobody told in time whether it was applied.
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
        # A full etcd deletes, but takes no mark.
        answer = self._client.send(rpc.TXN, rpc.TxnRequest(compare=compare, success=success, failure=failure))
        return Applied(answer.header.revision, answer.succeeded, tuple(answer.responses))

    def _try(
        self, mark: _Mark, compare: list[Any], success: list[Any], failure: list[Any], deadline: float
    ) -> Applied | None:
        """Send a transaction with a mark; None when it was not applied, and there is time to send it again."""
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
                return None  # somebody took the mark away before: nothing was done
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
        """Return the revision of a transaction that was sent; 0 when it was not applied, and never will be."""
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
        if not found and boot_clock() - sent < _SWEEP_SECONDS / 2:  # deleted above, by a try whose answer was lost
            return 0
        raise error from error.__cause__

    # The marks

    def _take(self) -> _Mark:
        """Return a mark that nobody uses, a new one if there is none."""
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
        return _Mark(key, answer.responses[0].response_range.kvs[0].mod_revision)  # made by a try that lost its answer

    def _give_back(self, mark: _Mark) -> None:
        with self._lock:
            self._free.append(mark)

    def sweep(self) -> None:
        """Delete the marks of other clients that have not changed for ten minutes of this process's time.

        A client that lives makes a new one. One of its transactions that is still under way by then is not applied,
        and its sender, if it still waits, calls the outcome unknown.
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
        """Delete this client's marks, as far as etcd answers: nobody uses them any more."""
        with self._lock:
            going, self._free = self._free, []
        if not going or not self._client.answers:
            return
        end = self._own[:-1] + bytes([self._own[-1] + 1])
        deletion = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=self._own, range_end=end))
        try:
            self._client.ask(rpc.TXN, rpc.TxnRequest(success=[deletion]), _CLOSE_SECONDS)
        except AgolaError:
            logger.debug("the marks of a closed coordinator stay until they are swept", exc_info=True)


def _unmoved(mark: _Mark) -> Any:
    return rpc.Compare(result=_EQUAL, target=_MOD_REVISION, key=mark.key, mod_revision=mark.revision)
