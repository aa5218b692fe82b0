"""Who may call what: bearer tokens of clients, executors and admins.

Tokens are kept as digests only, so no log, error or dump can show one, and are compared in constant time. A kind
without tokens is open to everybody; the server then listens on loopback only, unless told to trust its network.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from agola_core.errors import BadRequestError, ForbiddenError, UnauthorizedError
from agola_http.endpoints import Caller, Principal

MIN_TOKEN_BYTES = 8
COOKIE = "agola_token"
"""In it a browser that signed in on the page shows its token."""
_KINDS = (Principal.CLIENT, Principal.EXECUTOR, Principal.ADMIN)
_GRANTS = {
    Principal.CLIENT: {Principal.CLIENT},
    Principal.EXECUTOR: {Principal.EXECUTOR},
    Principal.ADMIN: {Principal.ADMIN, Principal.CLIENT},
}


class Tokens:
    """The tokens of each kind of caller.

    A line of the executors' may be `ID=TOKEN`: that token then speaks for one executor alone.

    Args:
        client: Those of clients.
        executor: Those of executors.
        admin: Those of admins, who may also do what clients may.

    Raises:
        BadRequestError: A token is too short, or holds characters that no header carries.
    """

    def __init__(self, client: Iterable[str] = (), executor: Iterable[str] = (), admin: Iterable[str] = ()) -> None:
        self._digests: list[tuple[bytes, Caller]] = []
        for principal, tokens in zip(_KINDS, (client, executor, admin), strict=True):
            for item in tokens:
                executor_id, token = _split(item) if principal is Principal.EXECUTOR else (None, item)
                _check(token, principal)
                self._digests.append((_digest(token), Caller(principal, executor_id)))

    def has(self, principal: Principal) -> bool:
        """Return whether callers of a kind must show a token."""
        return any(caller.principal is principal for _, caller in self._digests)

    @property
    def complete(self) -> bool:
        """Whether callers of every kind must show a token."""
        return all(self.has(kind) for kind in _KINDS)

    def find(self, token: str) -> Caller | None:
        """Return who shows a token; every known token is compared, in constant time."""
        digest = _digest(token)
        found = None
        for known, caller in self._digests:
            if hmac.compare_digest(known, digest):
                found = caller
        return found


class Access:
    """Decides about requests.

    Args:
        tokens: The tokens.
        trust_network: Whether kinds without tokens are open to hosts beyond this one; otherwise a request that
            a web page made under a foreign name is refused.
    """

    def __init__(self, tokens: Tokens | None = None, *, trust_network: bool = False) -> None:
        self._tokens = tokens or Tokens()
        self._trust_network = trust_network

    def admit(self, principal: Principal, headers: Headers) -> Caller:
        """Return the caller of an endpoint.

        Args:
            principal: Who may call it.
            headers: The request's.

        Raises:
            UnauthorizedError: It needs a token, and none that is known was shown.
            ForbiddenError: The token is another kind's.
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
        raise UnauthorizedError(f"a token of kind {principal.value} is needed")

    def accepts(self, principal: Principal, token: str) -> bool:
        """Return whether a token lets its holder call what a kind of caller may call."""
        caller = self._tokens.find(token)
        return caller is not None and principal in _GRANTS[caller.principal]

    def _caller(self, headers: Headers) -> Caller:
        token = _bearer(headers) or _cookie(headers)
        return (self._tokens.find(token) if token else None) or Caller()

    def _check_local(self, headers: Headers) -> None:
        """Refuse what a browser sends for a page of another site: without a token, that page would be let in."""
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise ForbiddenError("pages of another site are not allowed here without a token")
        if not self._trust_network and not _is_literal(urlsplit(f"//{host}").hostname or ""):
            raise ForbiddenError("without a token the service is asked by its address or as localhost")


def check_own(caller: Caller, executor_id: str, named: str) -> str:
    """Return the id of the executor that a request is about.

    An executor that showed a token may speak for itself alone. Without tokens the body's id counts, as in Agola.

    Args:
        caller: Who calls.
        executor_id: The id in the path.
        named: The id in the body.

    Raises:
        ForbiddenError: The caller may not speak for that executor.
    """
    if caller.executor_id not in {None, executor_id}:
        raise ForbiddenError(f"the token is another executor's, not {executor_id[:80]!r}'s")
    if caller.is_known and named != executor_id:
        raise ForbiddenError(f"executor {executor_id[:80]!r} may not speak for {named[:80]!r}")
    return named


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() in {"bearer", "token"} else ""


def _cookie(headers: Headers) -> str:
    """Return the token of a browser that signed in, unless a page of another site makes it ask."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host", ""):
        return ""
    for item in headers.get("cookie", "").split(";"):
        name, _, value = item.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on is reached from this machine alone."""
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


def _check(token: str, principal: Principal) -> None:
    if len(token) < MIN_TOKEN_BYTES or not token.isascii() or not token.isprintable() or " " in token:
        raise BadRequestError(
            f"a {principal.value} token is not usable: at least {MIN_TOKEN_BYTES} printable ASCII characters, no spaces"
        )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
