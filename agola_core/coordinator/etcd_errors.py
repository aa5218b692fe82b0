"""What an error of etcd, or on the way to it, means: for the request, and for its caller."""

from __future__ import annotations

import enum
from typing import NamedTuple

import grpc

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
    """What became of a request that ended in an error."""

    REFUSED = "certainly not applied; another member, or the same one later, may take it"
    FINAL = "certainly not applied; asking again changes nothing"
    LOGGED_OUT = "certainly not applied; log in again"
    LOST = "perhaps applied, perhaps later"
    DOUBTFUL = "perhaps applied, but not later; asking again changes nothing"


class Failure(NamedTuple):
    """A failed request.

    Attributes:
        verdict: What became of it.
        error: What its caller is told when it ends with this.
        reason: The server's or the transport's own words.
    """

    verdict: Verdict
    error: AgolaError
    reason: str


COMPACTED = "required revision has been compacted"
FUTURE = "required revision is a future revision"
LEASE_EXISTS = "lease already exists"
TOO_LARGE_ANSWER = "larger than max"

# The words of gRPC's and etcd's own code; where a release changes them, an error is only taken for less certain.
_NEVER_SENT = ("failed to connect to all addresses", "Name resolution failure", "DNS resolution failed")
_NOT_PROPOSED = ("etcdserver: too many requests", "raft proposal dropped", "etcdserver: not capable")
_NO_LEADER = (
    "etcdserver: no leader",
    "etcdserver: leader changed",
    "etcdserver: request timed out",
    "unhealthy cluster",
)
_LOGIN = ("authentication failed", "user name is empty", "authentication is not enabled")
_STALE_LOGIN = ("invalid auth token", "revision of auth store is old")


def explain(error: grpc.RpcError, where: str) -> Failure:
    """Return what an error means.

    Args:
        error: What a call raised.
        where: The endpoint that was asked, for people.
    """
    code, reason = error.code(), error.details() or ""
    text = f"etcd at {where}: {reason.removeprefix('etcdserver: ') or code.name}"
    if any(words in reason for words in _STALE_LOGIN):
        return Failure(Verdict.LOGGED_OUT, AuthenticationError(text), reason)
    if any(words in reason for words in _LOGIN):
        return Failure(Verdict.FINAL, AuthenticationError(text), reason)
    match code:
        case grpc.StatusCode.PERMISSION_DENIED:
            return Failure(Verdict.FINAL, AccessDeniedError(text), reason)
        case grpc.StatusCode.UNAUTHENTICATED:
            return Failure(Verdict.LOGGED_OUT, AuthenticationError(text), reason)
        case grpc.StatusCode.NOT_FOUND:
            return Failure(Verdict.FINAL, NotFoundError(text), reason)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "space exceeded" in reason:
            # Its quota layer applies a request that it has let in, and answers this when there is no room afterwards.
            return Failure(Verdict.DOUBTFUL, OutOfSpaceError(f"{text}; compact, defragment, disarm the alarm"), reason)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if TOO_LARGE_ANSWER in reason:
            return Failure(Verdict.FINAL, UnavailableError(text), reason)
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE | grpc.StatusCode.FAILED_PRECONDITION:
            return Failure(Verdict.FINAL, BadRequestError(text), reason)
        case grpc.StatusCode.UNIMPLEMENTED:
            return Failure(Verdict.FINAL, BadRequestError(f"{text}; is it an etcd of version 3.4 or newer?"), reason)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Failure(Verdict.LOST, DeadlineError(f"etcd at {where} gave no answer in time"), reason)
    if reason.startswith(_NEVER_SENT):
        return Failure(Verdict.REFUSED, UnavailableError(f"etcd at {where} cannot be reached: {_last(reason)}"), reason)
    if reason == "etcdserver: no leader":  # the members refuse so before they propose anything
        return Failure(Verdict.REFUSED, NoLeaderError(f"{text}: the cluster has lost its majority"), reason)
    if any(words in reason for words in _NOT_PROPOSED):
        return Failure(Verdict.REFUSED, UnavailableError(text), reason)
    if any(words in reason for words in _NO_LEADER):
        return Failure(Verdict.LOST, NoLeaderError(text), reason)
    return Failure(Verdict.LOST, UnavailableError(text), reason)


def _last(reason: str) -> str:
    return reason.partition("last error: ")[2] or reason
