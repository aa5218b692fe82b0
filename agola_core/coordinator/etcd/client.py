"""Client of an etcd cluster: failover between endpoints, deadlines, authentication, detection of a replaced cluster.

An idempotent request is retried on the next endpoint until its deadline. Any other (a transaction) is sent once, to an
endpoint that has just answered, and retried only if it certainly was not sent; otherwise its outcome is unknown, and
the caller is told so.
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
    AuthenticationError,
    BadRequestError,
    ClosedError,
    DeadlineError,
    NoLeaderError,
    RecoveryError,
    UnavailableError,
    UnknownOutcomeError,
)
from agola_core.runtime.processes.forks import Origin, fork_safe

Metadata = tuple[tuple[str, str], ...]

_ATTEMPT_SECONDS = 2.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_LARGEST_ANSWER = 32 * 1024 * 1024

# Pings detect dead connections; that takes all three settings. etcd allows one ping in 5 s.
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
    """Backoff between attempts: none while there are untried endpoints, then exponential with jitter.

    Args:
        free: Number of attempts without a pause.
        longest: Maximum pause, in seconds.
    """

    def __init__(self, free: int = 0, longest: float = _LONGEST_PAUSE) -> None:
        self._free = free
        self._longest = longest
        self.failures = 0

    def next(self) -> float:
        """Count a failure and return the seconds to wait."""
        self.failures += 1
        exponent = self.failures - self._free - 1
        if exponent < 0:
            return 0.0
        longest = min(_FIRST_PAUSE * 2.0 ** min(exponent, 16), self._longest)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311

    def reset(self) -> None:
        """Start over after a success."""
        self.failures = 0


class Endpoint:
    """A member of the cluster and the connection to it.

    Attributes:
        name: Its address.
        answers: Whether its most recent request was answered.
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
        """Send one request and return the answer.

        So a lease is renewed as well, although that method is a stream: etcd ends it with the requests, and a stream
        of gRPC costs threads.
        """
        call = self._unary.get(method.path)
        if call is None:
            call = self._unary[method.path] = self._channel.unary_unary(
                method.path, method.request.SerializeToString, method.response.FromString
            )
        return call(request, timeout=timeout, metadata=metadata)

    def stream(self, method: Method, requests: Iterable[Any], metadata: Metadata) -> Any:
        """Start a stream; return an iterator over its answers that can be cancelled."""
        call = self._channel.stream_stream(method.path, method.request.SerializeToString, method.response.FromString)
        return call(iter(requests), metadata=metadata)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


class EtcdClient:
    """A client of an etcd cluster. Thread-safe; not usable in a forked child.

    Args:
        settings: How to reach the cluster.

    Attributes:
        settings: How to reach the cluster.
        closing: Set once the client is being closed.

    Raises:
        UnavailableError: No member answers in time.
        AuthenticationError: The user or the password is wrong.
    """

    def __init__(self, settings: EtcdSettings) -> None:
        self.settings = settings
        self.closing = fork_safe(threading.Event())
        self.origin = Origin("the coordinator")
        try:
            self._endpoints = [Endpoint(name, settings) for name in settings.endpoints]
        except ValueError as error:
            raise BadRequestError(f"etcd URL: the certificates are not usable: {error}") from error
        self._current = 0
        self._token = ""
        self._login = fork_safe(threading.Lock())
        self._cluster = 0
        self._revision = 0
        self._broken = ""
        try:
            if settings.user:
                self._log_in("")
            self.revision()
        except BaseException:
            self.close()
            raise

    # Requests

    def ask(self, method: Method, request: Any, timeout: float | None = None) -> Any:
        """Send an idempotent request, and repeat it until it is answered.

        Raises:
            DeadlineError: No answer in time; the message names the endpoints and the last failure.
        """
        return self._request(method, request, timeout or self.settings.timeout, once=False)

    def send(self, method: Method, request: Any, timeout: float | None = None) -> Any:
        """Send a request that must not be applied twice, once.

        Raises:
            UnknownOutcomeError: It was sent and may have been applied; its cause is the error to report if it was not.
            UnavailableError: It was not applied.
        """
        return self._request(method, request, timeout or self.settings.timeout, once=True)

    def try_once(self, method: Method, request: Any, timeout: float) -> bool:
        """Send a request to the preferred endpoint, once and to no other; return whether it was answered."""
        try:
            self._endpoints[self._current].unary(method, request, timeout, _metadata(self._token))
        except (grpc.RpcError, ValueError):  # gRPC raises the latter for a closed channel
            return False
        return True

    def doubt(self, name: str) -> None:
        """Take an endpoint for one that does not answer, until it does."""
        for endpoint in self._endpoints:
            if endpoint.name == name:
                endpoint.answers = False

    @property
    def answers(self) -> bool:
        """Whether the preferred endpoint answered its most recent request."""
        return self._endpoints[self._current].answers

    def revision(self) -> int:
        """Return the cluster's newest revision. Linearizable; raises if the cluster's history was replaced."""
        return int(self.ask(rpc.RANGE, self._harmless()).header.revision)

    def cluster(self) -> int:
        """Return the cluster's id."""
        if not self._cluster:
            self.revision()
        return self._cluster

    def watch(self, requests: Iterable[Any], turn: int) -> tuple[Any, str]:
        """Start a watch stream; return it and the endpoint's name.

        Args:
            requests: Requests to send on the stream; blocks until there is another one.
            turn: Offset from the preferred endpoint.
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
                answer = endpoint.unary(method, request, attempt, _metadata(token))
            except grpc.RpcError as error:
                self.check_usable()
                failure = explain(error, endpoint.name)
                failure.error.__cause__ = error
                if failure.verdict is Verdict.LOGGED_OUT and self.settings.user and method is not rpc.AUTHENTICATE:
                    self._log_in(token)
                    # A member that has just started or lags behind does not know the new token either.
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
            except ValueError as error:  # raised by gRPC when the channel was closed
                raise ClosedError("the coordinator was closed") from error
            endpoint.answers = True
            self._check_history(answer.header, seen, linearizable=method is rpc.RANGE or method is rpc.TXN)
            return answer

    def _answering(self, timeout: float) -> Endpoint:
        """Return an endpoint that has just answered a harmless request."""
        self._request(rpc.RANGE, self._harmless(), timeout, once=False)
        return self._endpoints[self._current]

    def _harmless(self) -> Any:
        return rpc.RangeRequest(key=self.settings.prefix or b"\0", count_only=True)

    def _turn_from(self, endpoint: Endpoint) -> None:
        endpoint.answers = False
        if self._endpoints[self._current] is endpoint:
            self._current = (self._current + 1) % len(self._endpoints)

    def out_of_time(self, timeout: float, cause: BaseException | None) -> NoReturn:
        """Raise the error for a caller whose deadline has passed.

        Args:
            timeout: The time limit, in seconds.
            cause: The last failure.
        """
        text = f"etcd at {self.settings.where} did not answer within {timeout:.3g} s"
        if isinstance(cause, NoLeaderError):
            raise NoLeaderError(f"{text}: {cause}") from cause
        raise DeadlineError(f"{text}: {cause}" if cause else text) from cause

    # Authentication

    def _log_in(self, refused: str) -> None:
        """Get a new token, unless another thread has got one since `refused` was rejected.

        The old token stays in use until then: with it other threads are told to log in again, without any they would
        be anonymous. The login request carries no token: etcd 3.4 refuses it with an unknown one.
        """
        with self._login:
            if self._token != refused:
                return
            request = rpc.AuthenticateRequest(name=self.settings.user, password=self.settings.password)
            try:
                self._token = self.ask(rpc.AUTHENTICATE, request).token
            except BadRequestError as error:
                raise AuthenticationError(f"etcd user {self.settings.user!r}: {error}") from error

    # Detecting a replaced cluster

    def check_usable(self) -> None:
        """Raise an error if this client can no longer be used."""
        if self._broken:
            raise RecoveryError(self._broken)  # a new one: one for all would gather the frames of every request
        if self.closing.is_set():
            raise ClosedError("the coordinator was closed")
        self.origin.check()

    def check_cluster(self, cluster: int) -> None:
        """Raise `RecoveryError`, now and at every later request, if another cluster answers."""
        if self._cluster and cluster and cluster != self._cluster:
            self.give_up(f"another cluster answers, {cluster:x} instead of {self._cluster:x}")
        self._cluster = self._cluster or cluster

    def give_up(self, reason: str) -> NoReturn:
        """Refuse every request from now on: the cluster's content is not what this process has seen."""
        self._broken = (
            f"etcd at {self.settings.where}: {reason}; it was restored from a backup, wiped or replaced: "
            "open the store anew, with recover=True when it is behind its storage"
        )
        raise RecoveryError(self._broken)

    def _check_history(self, header: Any, seen: int, *, linearizable: bool) -> None:
        self.check_cluster(header.cluster_id)
        if not linearizable:  # the answering member may lag
            return
        if header.revision < seen:
            self.give_up(f"its history went back from revision {seen} to {header.revision}")
        if header.revision > self._revision:
            self._revision = header.revision

    def close(self) -> None:
        """Close all connections and end running requests; harmless in a forked child, which owns none."""
        if not self.origin.is_here:
            return
        self.closing.set()
        for endpoint in self._endpoints:
            endpoint.close()


def _metadata(token: str) -> Metadata:
    return (_REQUIRE_LEADER, ("token", token)) if token else (_REQUIRE_LEADER,)


def unavailable(error: grpc.RpcError, where: str) -> UnavailableError:
    """Translate an error of a stream."""
    explained = explain(error, where).error
    return explained if isinstance(explained, UnavailableError) else UnavailableError(str(explained))
