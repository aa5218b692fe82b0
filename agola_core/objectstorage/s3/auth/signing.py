"""Signs AWS requests, signature version 4 (Amazon S3 API reference, "Authenticating requests")."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote

EMPTY_HASH = hashlib.sha256(b"").hexdigest()


class Credentials(NamedTuple):
    """What a request is signed with.

    Attributes:
        access_key: The id of the key.
        secret_key: The key.
        token: Of a session; "" for none.
        expires: When they end, in seconds since 1970; None: never.
    """

    access_key: str
    secret_key: str
    token: str = ""
    expires: float | None = None

    def __repr__(self) -> str:
        """Tell nothing secret."""
        return "Credentials(...)"


def encoded_path(key: str) -> str:
    """Return a key as it stands in the path of a request."""
    return quote(key, safe="/-_.~")


def encoded_query(query: Iterable[tuple[str, str]]) -> str:
    """Return the query of a request in the order in which it is signed."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query))


class Signer:
    """Signs requests.

    Args:
        region: In which the server is.
        service: Such as s3.
    """

    def __init__(self, region: str, service: str = "s3") -> None:
        self._region = region
        self._service = service
        self._key: tuple[str, str, bytes] = ("", "", b"")

    def sign(
        self,
        credentials: Credentials,
        method: str,
        path: str,
        query: str,
        headers: dict[str, str],
        payload_hash: str,
        now: datetime,
    ) -> None:
        """Add the date, the token and the signature to the headers of a request.

        Args:
            credentials: Whose it is.
            method: Such as GET.
            path: As `encoded_path` gives it.
            query: As `encoded_query` gives it.
            headers: By lower-case name, `host` among them; all of them are signed.
            payload_hash: SHA-256 of the body, in hexadecimal digits.
            now: The time, in UTC.
        """
        moment = now.strftime("%Y%m%dT%H%M%SZ")
        headers["x-amz-content-sha256"] = payload_hash
        headers["x-amz-date"] = moment
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        names = sorted(headers)
        signed = ";".join(names)
        lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names)
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{signed}\n{payload_hash}"
        scope = f"{moment[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key(credentials.secret_key, moment[:8]), text.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={signed}, Signature={signature}"
        )

    def _signing_key(self, secret: str, day: str) -> bytes:
        known_secret, known_day, key = self._key
        if (known_secret, known_day) != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = (secret, day, key)
        return key
