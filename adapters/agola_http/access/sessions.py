"""Browser sessions: signed cookies that are bound to an access token without revealing it.

It is the time of its end, signed with the token's digest. So nothing is kept for it, every instance that knows the
token knows it, and it ends with the token. It is no bearer token.
"""

from __future__ import annotations

import hashlib
import hmac

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response

from agola_core.encoding.numerals import whole_number

SECONDS = 7 * 24 * 3600
COOKIE = "agola_session"


def issue(digest: bytes, now: float) -> str:
    """Return a new session.

    Args:
        digest: The token's.
        now: Seconds since 1970.
    """
    end = str(int(now) + SECONDS)
    return f"{end}.{_signature(digest, end)}"


def is_of(session: str, digest: bytes, now: float) -> bool:
    """Return whether a session is a token's, and not over; compared in constant time.

    Args:
        session: What a browser sent.
        digest: The token's.
        now: Seconds since 1970.
    """
    end, _, signature = session.partition(".")
    genuine = hmac.compare_digest(signature.encode(), _signature(digest, end).encode())
    return genuine and (whole_number(end) or 0) > now


def keep(response: Response, session: str, *, secure: bool) -> Response:
    """Return a response that lets a browser keep a session, or forget it.

    Args:
        response: The response.
        session: The session; "" to forget it.
        secure: Whether the browser came over TLS; it then never sends the session without.
    """
    age = SECONDS if session else 0
    response.set_cookie(COOKIE, session, max_age=age, secure=secure, httponly=True, samesite="strict")
    return response


def sent(headers: Headers) -> str:
    """Return the session that a browser sends; "" for none."""
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, "")


def _signature(digest: bytes, end: str) -> str:
    return hmac.new(digest, f"agola session {end}".encode(), hashlib.sha256).hexdigest()
