"""Table of the errors of etcd and gRPC: the outcome of the request, and the error that its caller gets.

Each row of `TABLE` names the place in the source of etcd (release 3.6; 3.4 has the same order of steps) or of gRPC that
shows whether the error occurs before a transaction is proposed, while it is applied, or afterwards.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import grpc

from agola_core.coordinator.outcomes import Outcome
from agola_core.errors import (
    AccessDeniedError,
    AgolaError,
    AuthenticationError,
    BadRequestError,
    DeadlineError,
    NoLeaderError,
    NotFoundError,
    OutOfSpaceError,
    UnavailableError,
)


class Verdict(enum.Enum):
    """Outcome of a failed request, and what to do next."""

    REFUSED = "certainly not applied; another member, or the same one later, may take it"
    FINAL = "certainly not applied; asking again changes nothing"
    LOGGED_OUT = "certainly not applied; log in again"
    LOST = "perhaps applied, perhaps later"
    DOUBTFUL = "perhaps applied, but not later; asking again changes nothing"

    @property
    def outcome(self) -> Outcome:
        """The outcome as far as the error tells."""
        return Outcome.UNKNOWN if self in {Verdict.LOST, Verdict.DOUBTFUL} else Outcome.NOT_APPLIED


class Failure(NamedTuple):
    """A failed request.

    Attributes:
        verdict: Its outcome.
        error: The error for the caller if there is no retry.
        reason: The message of the server or the transport.
    """

    verdict: Verdict
    error: AgolaError
    reason: str


class Row(NamedTuple):
    """A kind of error; the first row whose code and words match an error applies.

    Attributes:
        code: gRPC's code; None for any.
        words: Text that the reason contains; "" for any.
        verdict: Outcome of the request.
        error: The class of error that the caller gets.
        source: The evidence in the source of etcd or gRPC.
        advice: Text to append to the caller's error.
    """

    code: grpc.StatusCode | None
    words: str
    verdict: Verdict
    error: type[AgolaError]
    source: str
    advice: str = ""


COMPACTED = "required revision has been compacted"
FUTURE = "required revision is a future revision"
LEASE_EXISTS = "lease already exists"
TOO_LARGE_ANSWER = "larger than max"

_BEFORE = "server/etcdserver/v3_server.go processInternalRaftRequestOnce: before the proposal"
_CHECKED = "server/etcdserver/txn/txn.go checkTxn: before the first write"
_AUTH = "server/etcdserver/apply/apply_auth.go Txn: before the first write"
_KEY = "server/etcdserver/api/v3rpc/key.go checkTxnRequest: before the proposal"
_UNARY = "server/etcdserver/api/v3rpc/interceptor.go newUnaryInterceptor: before the proposal"
_WAITING = "server/etcdserver/v3_server.go parseProposeCtxErr: proposed, and not applied in time"
_UNSENT = "gRPC core: no connection to send it on"

_Code = grpc.StatusCode

# If a release of gRPC or etcd changes its words, the outcome is merely taken to be less certain.
TABLE = (
    Row(None, "invalid auth token", Verdict.LOGGED_OUT, AuthenticationError, _BEFORE),
    Row(None, "revision of auth store is old", Verdict.LOGGED_OUT, AuthenticationError, _AUTH),
    Row(None, "authentication failed", Verdict.FINAL, AuthenticationError, "auth/store.go CheckPassword"),
    Row(None, "user name is empty", Verdict.FINAL, AuthenticationError, _AUTH),
    Row(None, "authentication is not enabled", Verdict.FINAL, AuthenticationError, "auth/store.go Authenticate"),
    Row(_Code.PERMISSION_DENIED, "", Verdict.FINAL, AccessDeniedError, _AUTH),
    Row(_Code.UNAUTHENTICATED, "", Verdict.LOGGED_OUT, AuthenticationError, _BEFORE),
    Row(_Code.NOT_FOUND, "", Verdict.FINAL, NotFoundError, _CHECKED),
    Row(
        _Code.RESOURCE_EXHAUSTED,
        "space exceeded",
        Verdict.DOUBTFUL,
        OutOfSpaceError,
        "server/etcdserver/apply/apply.go quotaApplierV3: applied first, then answered",
        "; compact, defragment, disarm the alarm",
    ),
    Row(
        _Code.RESOURCE_EXHAUSTED,
        TOO_LARGE_ANSWER,
        Verdict.DOUBTFUL,
        UnavailableError,
        "gRPC core: the answer of what was done is too long to be received",
    ),
    Row(None, "etcdserver: too many requests", Verdict.REFUSED, UnavailableError, _BEFORE),
    Row(None, "raft proposal dropped", Verdict.REFUSED, UnavailableError, "raft.go Step: never in a log"),
    Row(None, "etcdserver: not capable", Verdict.REFUSED, UnavailableError, _UNARY),
    Row(None, "rpc not supported for learner", Verdict.REFUSED, UnavailableError, _UNARY),
    Row(
        None,
        "corrupt cluster",
        Verdict.FINAL,
        UnavailableError,
        "server/etcdserver/apply/corrupt.go applierV3Corrupt: refuses everything",
        "; etcd's own alarm: restore the member or the cluster",
    ),
    Row(_Code.INVALID_ARGUMENT, "", Verdict.FINAL, BadRequestError, _KEY),
    Row(_Code.OUT_OF_RANGE, "", Verdict.FINAL, BadRequestError, _CHECKED),
    Row(_Code.FAILED_PRECONDITION, "", Verdict.FINAL, BadRequestError, _CHECKED),
    Row(
        _Code.UNIMPLEMENTED,
        "",
        Verdict.FINAL,
        BadRequestError,
        "gRPC: there is no such method",
        "; is it an etcd of version 3.4 or newer?",
    ),
    Row(_Code.DEADLINE_EXCEEDED, "", Verdict.LOST, DeadlineError, "gRPC: this client's own deadline"),
    Row(None, "failed to connect to all addresses", Verdict.REFUSED, UnavailableError, _UNSENT),
    Row(None, "Name resolution failure", Verdict.REFUSED, UnavailableError, _UNSENT),
    Row(None, "DNS resolution failed", Verdict.REFUSED, UnavailableError, _UNSENT),
    Row(None, "etcdserver: no leader", Verdict.REFUSED, NoLeaderError, _UNARY, ": the cluster has lost its majority"),
    Row(None, "etcdserver: leader changed", Verdict.LOST, NoLeaderError, _WAITING),
    Row(None, "etcdserver: request timed out", Verdict.LOST, NoLeaderError, _WAITING),
    Row(None, "unhealthy cluster", Verdict.LOST, NoLeaderError, _WAITING),
    Row(None, "etcdserver: server stopped", Verdict.LOST, UnavailableError, _WAITING),
    Row(_Code.CANCELLED, "", Verdict.LOST, UnavailableError, "gRPC: the call was cancelled on its way, by either side"),
    Row(_Code.UNAVAILABLE, "", Verdict.LOST, UnavailableError, "gRPC core: the connection broke after the request"),
    Row(None, "", Verdict.LOST, UnavailableError, "anything else"),
)


def find_row(code: grpc.StatusCode, reason: str) -> Row:
    """Return the row of the table for an error.

    Args:
        code: gRPC's code.
        reason: The message of the server or the transport.
    """
    return next(
        row
        for row in TABLE
        if row.code in {None, code} and (reason.startswith(row.words) if row.source == _UNSENT else row.words in reason)
    )


def explain(error: grpc.RpcError, where: str) -> Failure:
    """Look an error up in the table.

    Args:
        error: The error that a call raised.
        where: The endpoint, for the message.
    """
    code, reason = error.code(), error.details() or ""
    row = find_row(code, reason)
    if row.source == _UNSENT:
        text = f"etcd at {where} cannot be reached: {reason.partition('last error: ')[2] or reason}"
    elif code is _Code.DEADLINE_EXCEEDED:
        text = f"etcd at {where} gave no answer in time"
    else:
        text = f"etcd at {where}: {reason.removeprefix('etcdserver: ') or code.name}{row.advice}"
    return Failure(row.verdict, row.error(text), reason)
