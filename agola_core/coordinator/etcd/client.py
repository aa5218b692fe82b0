"""Requests to an etcd cluster: endpoints in turn, deadlines, logging in, and noticing another history.

A request that may be repeated is repeated, on the next endpoint, until its time is over. One that may not (a
transaction, a lease) is sent only where an endpoint has just answered, and once: only when it certainly went
nowhere is it sent again; otherwise its outcome is unknown, and the caller hears so.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable
from typing import Any, NoReturn

import grpc

from agola_core.coordinator.etcd import messages as rpc
from agola_core.coordinator.etcd.errors import Failure, Verdict, explain
from agola_core.coordinator.etcd.messages import Method
from agola_core.coordinator.etcd.settings import EtcdSettings
from agola_core.errors import (
    AgolaError,
    AuthenticationError,
    BadRequestError,
    ClosedError,
    DeadlineError,
    NoLeaderError,
    RecoveryError,
    UnavailableError,
    UnknownOutcomeError,
)
from agola_core.runtime.forks import Origin, renewed

Metadata = tuple[tuple[str, str], ...]

_ATTEMPT_SECONDS = 2.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_LARGEST_ANSWER = 32 * 1024 * 1024

# Dead connections are noticed by pings; all three settings are needed for that. etcd allows one ping in 5 s.
_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 6000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", _LARGEST_ANSWER),
    ("grpc.max_send_message_length", -1),
)
_REQUIRE_LEADER = ("hasleader", "true")


class Backoff:
    """Pauses between tries: none while there are endpoints not yet asked, then longer ones, each by chance.

    Args:
        free: How many tries follow without a pause.
        longest: Seconds of the longest pause.
    """

    def __init__(self, free: int = 0, longest: float = _LONGEST_PAUSE) -> None:
        self._free = free
        self._longest = longest
        self.failures = 0

    def next(self) -> float:
        """Return the seconds to wait now."""
        self.failures += 1
        exponent = self.failures - self._free - 1
        if exponent < 0:
            return 0.0
        longest = min(_FIRST_PAUSE * 2.0 ** min(exponent, 16), self._longest)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311

    def reset(self) -> None:
        """Begin anew after a success."""
        self.failures = 0


class Endpoint:
    """One member of the cluster, and the connection to it.

    Attributes:
        name: Its address.
        answers: Whether its newest request was answered.
    """

    def __init__(self, name: str, settings: EtcdSettings) -> None:
        self.name = name
        self.answers = False
        options = [*_CHANNEL_OPTIONS]
        if settings.tls:
            credentials = grpc.ssl_channel_credentials(settings.ca or None, settings.key or None, settings.cert or None)
            self._channel = grpc.secure_channel(name, credentials, options)
        else:
            self._channel = grpc.insecure_channel(name, options)
        self._unary: dict[str, Any] = {}

    def unary(self, method: Method, request: Any, timeout: float, metadata: Metadata) -> Any:
        """Ask once and return the answer."""
        call = self._unary.get(method.path)
        if call is None:
            call = self._unary[method.path] = self._channel.unary_unary(
                method.path, method.request.SerializeToString, method.response.FromString
            )
        return call(request, timeout=timeout, metadata=metadata)

    def stream(self, method: Method, requests: Iterable[Any], metadata: Metadata, timeout: float | None = None) -> Any:
        """Start a stream and return it: an iterator of answers, which can be cancelled."""
        call = self._channel.stream_stream(method.path, method.request.SerializeToString, method.response.FromString)
        return call(iter(requests), timeout=timeout, metadata=metadata)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


class EtcdClient:
    """A connection to an etcd cluster. Thread-safe; not to be used by a forked child.

    Args:
        settings: Where the cluster is.

    Attributes:
        settings: Where the cluster is.
        closing: Set when it is being closed.

    Raises:
        UnavailableError: No member answers in time.
        AuthenticationError: The user or the password is wrong.
    """

    def __init__(self, settings: EtcdSettings) -> None:
        self.settings = settings
        self.closing = renewed(threading.Event())
        self.origin = Origin("the coordinator")
        try:
            self._endpoints = [Endpoint(name, settings) for name in settings.endpoints]
        except ValueError as error:
            raise BadRequestError(f"etcd URL: the certificates are not usable: {error}") from error
        self._current = 0
        self._token = ""
        self._login = renewed(threading.Lock())
        self._cluster = 0
        self._revision = 0
        self._broken: AgolaError | None = None
        try:
            if settings.user:
                self._log_in("")
            self.revision()
        except BaseException:
            self.close()
            raise

    # Requests

    def ask(self, method: Method, request: Any, timeout: float | None = None) -> Any:
        """Send a request that does no harm when it is repeated, until it is answered.

        Raises:
            DeadlineError: There was no answer in time; the message names the endpoints and the last failure.
        """
        return self._request(method, request, timeout or self.settings.timeout, once=False)

    def send(self, method: Method, request: Any, timeout: float | None = None) -> Any:
        """Send a request that must not be applied twice.

        Raises:
            UnknownOutcomeError: It was sent, and may have been applied; its cause is what its caller is told when it
                was not.
            UnavailableError: It was not applied.
        """
        return self._request(method, request, timeout or self.settings.timeout, once=True)

    @property
    def answers(self) -> bool:
        """Whether the newest request to the preferred endpoint was answered."""
        return self._endpoints[self._current].answers

    def revision(self) -> int:
        """Return the cluster's newest revision. Linearizable; raises when the cluster's history is another one."""
        return int(self.ask(rpc.RANGE, self._harmless()).header.revision)

    def cluster(self) -> int:
        """Return the cluster's id."""
        if not self._cluster:
            self.revision()
        return self._cluster

    def watch(self, requests: Iterable[Any], turn: int) -> tuple[Any, str]:
        """Start a watch's stream; return it with the endpoint's name.

        Args:
            requests: What goes up the stream; blocks until there is more.
            turn: How many endpoints after the preferred one it goes to.
        """
        self.check_usable()
        endpoint = self._endpoints[(self._current + turn) % len(self._endpoints)]
        try:
            return endpoint.stream(rpc.WATCH, requests, _metadata(self._token)), endpoint.name
        except ValueError as error:
            raise ClosedError("the coordinator was closed") from error

    def _request(self, method: Method, request: Any, timeout: float, *, once: bool) -> Any:
        deadline = time.monotonic() + timeout
        backoff = Backoff(free=len(self._endpoints) - 1)
        failure: Failure | None = None
        while True:
            self.check_usable()
            endpoint = self._endpoints[self._current]
            left = deadline - time.monotonic()
            if left <= 0:
                self.out_of_time(timeout, failure.error if failure else None)
            if once and not endpoint.answers:
                endpoint = self._answering(left)
                left = max(deadline - time.monotonic(), 0.1)
            seen, token = self._revision, "" if method is rpc.AUTHENTICATE else self._token
            try:
                attempt = left if once else min(left, _ATTEMPT_SECONDS * 2 ** min(backoff.failures, 8))
                answer = self._call(endpoint, method, request, attempt, token)
            except grpc.RpcError as error:
                self.check_usable()
                failure = explain(error, endpoint.name)
                failure.error.__cause__ = error
                if failure.verdict is Verdict.LOGGED_OUT and self.settings.user and method is not rpc.AUTHENTICATE:
                    self._log_in(token)
                    # A member that has just started, or lags behind, does not know the new token either.
                    self.closing.wait(min(backoff.next(), max(deadline - time.monotonic(), 0.0)))
                    continue
                if once and failure.verdict in {Verdict.LOST, Verdict.DOUBTFUL}:
                    self._turn_from(endpoint)
                    raise UnknownOutcomeError(f"it may have been applied: {failure.error}") from failure.error
                if failure.verdict in {Verdict.FINAL, Verdict.DOUBTFUL, Verdict.LOGGED_OUT}:
                    raise failure.error from error
                self._turn_from(endpoint)
                self.closing.wait(min(backoff.next(), max(deadline - time.monotonic(), 0.0)))
                continue
            except ValueError as error:  # gRPC's way to say that the channel was closed
                raise ClosedError("the coordinator was closed") from error
            endpoint.answers = True
            self._check_history(answer.header, seen, linearizable=method is rpc.RANGE or method is rpc.TXN)
            return answer

    def _call(self, endpoint: Endpoint, method: Method, request: Any, timeout: float, token: str) -> Any:
        if method is not rpc.LEASE_KEEP_ALIVE:
            return endpoint.unary(method, request, timeout, _metadata(token))
        stream = endpoint.stream(method, [request], _metadata(token), timeout)
        try:
            for answer in stream:
                return answer
            raise UnavailableError(f"etcd at {endpoint.name} ended a stream without an answer")
        finally:
            stream.cancel()

    def _answering(self, timeout: float) -> Endpoint:
        """Return an endpoint that has just answered something harmless."""
        self._request(rpc.RANGE, self._harmless(), timeout, once=False)
        return self._endpoints[self._current]

    def _harmless(self) -> Any:
        return rpc.RangeRequest(key=self.settings.prefix or b"\0", count_only=True)

    def _turn_from(self, endpoint: Endpoint) -> None:
        endpoint.answers = False
        if self._endpoints[self._current] is endpoint:
            self._current = (self._current + 1) % len(self._endpoints)

    def out_of_time(self, timeout: float, cause: BaseException | None) -> NoReturn:
        """Raise what a caller is told whose time is over.

        Args:
            timeout: Seconds that it had.
            cause: What failed last.
        """
        text = f"etcd at {self.settings.where} did not answer within {timeout:.3g} s"
        if isinstance(cause, NoLeaderError):
            raise NoLeaderError(f"{text}: {cause}") from cause
        raise DeadlineError(f"{text}: {cause}" if cause else text) from cause

    # Logging in

    def _log_in(self, refused: str) -> None:
        """Get a token, unless another thread has got one since this one was refused.

        The old one stays until there is a new one: with it the others are told to log in, without any they would be
        nobody. The request to log in has none: etcd 3.4 refuses it with one that it does not know.
        """
        with self._login:
            if self._token != refused:
                return
            request = rpc.AuthenticateRequest(name=self.settings.user, password=self.settings.password)
            try:
                self._token = self.ask(rpc.AUTHENTICATE, request).token
            except BadRequestError as error:
                raise AuthenticationError(f"etcd user {self.settings.user!r}: {error}") from error

    # Staying with one cluster and one history

    def check_usable(self) -> None:
        """Raise what makes this client unusable, if anything does."""
        if self._broken is not None:
            raise self._broken
        if self.closing.is_set():
            raise ClosedError("the coordinator was closed")
        self.origin.check()

    def check_cluster(self, cluster: int) -> None:
        """Raise `RecoveryError`, from now on at every request, when another cluster answers."""
        if self._cluster and cluster and cluster != self._cluster:
            self.give_up(f"another cluster answers, {cluster:x} instead of {self._cluster:x}")
        self._cluster = self._cluster or cluster

    def give_up(self, reason: str) -> NoReturn:
        """Refuse everything from now on: what this process knows is not what the cluster has."""
        self._broken = RecoveryError(
            f"etcd at {self.settings.where}: {reason}; it was restored from a backup, wiped or replaced: "
            "open the store anew, with recover=True when it is behind its storage"
        )
        raise self._broken

    def _check_history(self, header: Any, seen: int, *, linearizable: bool) -> None:
        self.check_cluster(header.cluster_id)
        if not linearizable:  # the answering member may lag behind
            return
        if header.revision < seen:
            self.give_up(f"its history went back from revision {seen} to {header.revision}")
        if header.revision > self._revision:
            self._revision = header.revision

    def close(self) -> None:
        """Close all connections; running requests end. In a forked child they are the parent's."""
        if not self.origin.is_here:
            return
        self.closing.set()
        for endpoint in self._endpoints:
            endpoint.close()


def _metadata(token: str) -> Metadata:
    return (_REQUIRE_LEADER, ("token", token)) if token else (_REQUIRE_LEADER,)


def unavailable(error: grpc.RpcError, where: str) -> UnavailableError:
    """Return an error of a stream as what its reader is told."""
    explained = explain(error, where).error
    return explained if isinstance(explained, UnavailableError) else UnavailableError(str(explained))
