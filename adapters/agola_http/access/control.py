"""Access control by bearer tokens of clients, executors and admins.

Tokens are kept as digests only, so no log, error or dump can show one, and are compared in constant time. A kind
without tokens is open to everybody; the server then listens on loopback only, unless told to trust its network.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from agola_core.errors import BadRequestError, ForbiddenError, UnauthorizedError
from agola_http.access import sessions
from agola_http.access.principals import Caller, Principal

MIN_TOKEN_BYTES, MAX_TOKEN_BYTES = 8, 1024
_KINDS = (Principal.CLIENT, Principal.EXECUTOR, Principal.ADMIN)
_GRANTS = {
    Principal.CLIENT: {Principal.CLIENT},
    Principal.EXECUTOR: {Principal.EXECUTOR},
    Principal.ADMIN: {Principal.ADMIN, Principal.CLIENT},
}


class Tokens:
    """Access tokens for each kind of caller.

    A line of the executors' may be `ID=TOKEN`: that token is bound to one executor.

    Args:
        client: Tokens of clients.
        executor: Tokens of executors.
        admin: Tokens of admins, who may also do everything that clients may.

    Raises:
        BadRequestError: A token is too short, or contains characters that are not allowed in a header.
    """

    def __init__(self, client: Iterable[str] = (), executor: Iterable[str] = (), admin: Iterable[str] = ()) -> None:
        self._digests: list[tuple[bytes, Caller]] = []
        for principal, tokens in zip(_KINDS, (client, executor, admin), strict=True):
            for item in tokens:
                executor_id, token = _split(item) if principal is Principal.EXECUTOR else (None, item)
                check_token(token, principal)
                self._digests.append((_digest(token), Caller(principal, executor_id)))

    def has(self, principal: Principal) -> bool:
        """Return whether callers of a kind must show a token."""
        return any(caller.principal is principal for _, caller in self._digests)

    @property
    def complete(self) -> bool:
        """Whether callers of every kind must show a token."""
        return all(self.has(kind) for kind in _KINDS)

    def find(self, token: str) -> Caller | None:
        """Return the caller with a token; compares it with every known token, in constant time."""
        digest = _digest(token)
        found = None
        for known, caller in self._digests:
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def find_session(self, session: str, now: float) -> Caller | None:
        """Return the caller of a session; compares it with every token, in constant time.

        Args:
            session: The session that the browser sent.
            now: Seconds since 1970.
        """
        found = None
        for known, caller in self._digests:
            if sessions.is_of(session, known, now):
                found = caller
        return found


class Access:
    """Decides about requests.

    Args:
        tokens: The tokens.
        trust_network: Whether kinds without tokens are open to hosts beyond this one; otherwise a request that
            a web page made under a foreign name is refused.
        clock: Seconds since 1970, for the ends of sessions.
    """

    def __init__(
        self, tokens: Tokens | None = None, *, trust_network: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._tokens = tokens or Tokens()
        self._trust_network = trust_network
        self._clock = clock

    def admit(self, principal: Principal, headers: Headers) -> Caller:
        """Return the caller of an endpoint.

        Args:
            principal: The kind of caller that may call it.
            headers: The headers of the request.

        Raises:
            UnauthorizedError: It needs a token, and the request has none that is known.
            ForbiddenError: The token belongs to another kind of caller.
        """
        caller = self._caller(headers)
        if principal is Principal.PUBLIC:
            return caller
        if caller.is_known and principal in _GRANTS[caller.principal]:
            return caller
        if not self._tokens.has(principal):
            self._check_local(headers)
            return Caller()
        if caller.is_known:
            raise ForbiddenError(f"a token of kind {caller.principal.value} does not allow this")
        if _bearer(headers):
            raise UnauthorizedError("the token that was shown is not valid")
        raise UnauthorizedError(f"a token of kind {principal.value} is needed")

    def sign_in(self, principal: Principal, token: str) -> str | None:
        """Return a session for a browser; None if callers of this kind need another token."""
        caller = self._tokens.find(token)
        if caller is None or principal not in _GRANTS[caller.principal]:
            return None
        return sessions.issue(_digest(token), self._clock())

    def _caller(self, headers: Headers) -> Caller:
        token = _bearer(headers)
        if token:
            return self._tokens.find(token) or Caller()
        session = sessions.sent(headers)
        if not session or is_foreign(headers):
            return Caller()
        return self._tokens.find_session(session, self._clock()) or Caller()

    def _check_local(self, headers: Headers) -> None:
        """Refuse what a browser sends for a page of another site: without a token, that page would be let in."""
        host = headers.get("host", "")
        if is_foreign(headers):
            raise ForbiddenError("pages of another site are not allowed here without a token")
        if not self._trust_network and not _is_literal(urlsplit(f"//{host}").hostname or ""):
            raise ForbiddenError("without a token the service is asked by its address or as localhost")


def check_own(caller: Caller, executor_id: str, named: str) -> str:
    """Return the id of the executor that a request is about.

    An executor with a token may act for itself only. Without tokens the id in the body counts, as in Agola.

    Args:
        caller: The caller.
        executor_id: The id in the path.
        named: The id in the body.

    Raises:
        ForbiddenError: The caller may not act for that executor.
    """
    if caller.executor_id not in {None, executor_id}:
        raise ForbiddenError(f"the token is another executor's, not {executor_id[:80]!r}'s")
    if caller.is_known and named != executor_id:
        raise ForbiddenError(f"executor {executor_id[:80]!r} may not speak for {named[:80]!r}")
    return named


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() in {"bearer", "token"} else ""


def is_foreign(headers: Headers) -> bool:
    """Return whether a browser says that a page of another site made the request."""
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_literal(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _split(item: str) -> tuple[str | None, str]:
    executor_id, mark, token = item.partition("=")
    return (executor_id, token) if mark and token.strip("=") else (None, item)


def check_token(token: str, principal: Principal) -> None:
    """Refuse a token that is easy to guess, or that cannot be sent in a header.

    Raises:
        BadRequestError: It is not usable; the message does not contain it.
    """
    if (
        not MIN_TOKEN_BYTES <= len(token) <= MAX_TOKEN_BYTES
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        raise BadRequestError(
            f"a {principal.value} token is not usable: at least {MIN_TOKEN_BYTES} printable ASCII characters, no spaces"
        )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
