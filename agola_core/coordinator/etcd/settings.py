"""Parses the URL of an etcd coordinator: endpoints, prefix, TLS, user, timeout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from agola_core.encoding.numerals import decimal_number, whole_number
from agola_core.errors import BadRequestError

DEFAULT_PORT = 2379
_PARAMETERS = ("ca", "cert", "key", "password_env", "timeout", "tls", "user")
_LOOPBACK = ("localhost", "127.", "[::1]")


class EtcdSettings(NamedTuple):
    """How an etcd cluster is reached.

    Attributes:
        endpoints: `host:port` of its members; the first one is preferred.
        prefix: Prefix of every key.
        timeout: Time limit of a request including its retries, in seconds.
        tls: Whether connections are encrypted.
        ca: Trusted CA certificates, in PEM; b"" for the system's.
        cert: This client's certificate, in PEM; b"" for none.
        key: The certificate's key, in PEM.
        user: User to log in as; "" for none.
        password: The user's password.
    """

    endpoints: tuple[str, ...]
    prefix: bytes = b""
    timeout: float = 5.0
    tls: bool = False
    ca: bytes = b""
    cert: bytes = b""
    key: bytes = b""
    user: str = ""
    password: str = ""

    @property
    def where(self) -> str:
        """The endpoints, for messages."""
        return ", ".join(self.endpoints)

    def __repr__(self) -> str:
        """Return the endpoints and the prefix; secrets stay out of logs."""
        return f"EtcdSettings({self.where}, prefix={self.prefix!r})"


def parse_url(url: str) -> EtcdSettings:
    """Parse a URL such as `etcd://h1:2379,h2:2379/prefix?ca=ca.pem&timeout=5`.

    The parameters: `ca`, `cert` and `key` name PEM files, and any of them enables TLS, as does `tls=true`, with the
    system's certificates; `user`, and `password_env` for the environment variable that holds the password; `timeout`
    for the time limit of a request, in seconds.

    Raises:
        BadRequestError: The URL is malformed, or names a file or a variable that does not exist.
    """
    try:
        split = urlsplit(url)
    except ValueError as error:
        raise BadRequestError(f"etcd URL: {error}") from error
    parameters = _parameters(url, split.query)
    if "@" in split.netloc:
        raise BadRequestError("etcd URL: give the user as ?user=NAME&password_env=VARIABLE, not before the hosts")
    endpoints = tuple(_endpoint(url, part) for part in split.netloc.split(","))
    path = unquote(split.path).strip("/")
    files = {name: _file(name, parameters[name]) for name in ("ca", "cert", "key") if name in parameters}
    if ("cert" in files) != ("key" in files):
        raise BadRequestError("etcd URL: cert and key go together")
    tls = bool(files) or _switch(parameters.get("tls", "false"))
    user, password = parameters.get("user", ""), ""
    if bool(user) != ("password_env" in parameters):
        raise BadRequestError("etcd URL: user and password_env go together")
    if user:
        password = _password(parameters["password_env"])
        if not tls and not all(endpoint.startswith(_LOOPBACK) for endpoint in endpoints):
            raise BadRequestError(
                "etcd URL: a password goes to another machine only encrypted; give ca=FILE or tls=true"
            )
    return EtcdSettings(
        endpoints=endpoints,
        prefix=f"{path}/".encode() if path else b"",
        timeout=_seconds(parameters.get("timeout", "5")),
        tls=tls,
        ca=files.get("ca", b""),
        cert=files.get("cert", b""),
        key=files.get("key", b""),
        user=user,
        password=password,
    )


def _parameters(url: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise BadRequestError(f"etcd URL {url!r}: {query!r} is not a list of NAME=VALUE") from error
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if name not in _PARAMETERS:
            raise BadRequestError(f"etcd URL: unknown parameter {name!r}; known are {', '.join(_PARAMETERS)}")
        if name in parameters:
            raise BadRequestError(f"etcd URL: parameter {name!r} is given twice")
        if not value:
            raise BadRequestError(f"etcd URL: parameter {name!r} is empty")
        parameters[name] = value
    return parameters


def _endpoint(url: str, text: str) -> str:
    host, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    if not host or not 0 < (whole_number(port) or 0) < 65536:
        raise BadRequestError(
            f"etcd URL {url!r}: {text!r} is not HOST:PORT; expected etcd://HOST:PORT,HOST:PORT/PREFIX"
        )
    return f"{host}:{port}"


def _file(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadRequestError(f"etcd URL: cannot read {name}={path}: {error.strerror}") from error


def _password(variable: str) -> str:
    password = os.environ.get(variable)
    if not password:
        raise BadRequestError(f"etcd URL: the environment variable {variable}, which password_env names, is not set")
    return password


def _switch(text: str) -> bool:
    if text not in {"true", "false"}:
        raise BadRequestError(f"etcd URL: tls={text}: expected true or false")
    return text == "true"


def _seconds(text: str) -> float:
    seconds = decimal_number(text)
    if seconds is None or not 0.1 <= seconds <= 3600:
        raise BadRequestError(f"etcd URL: timeout={text}: expected seconds, from 0.1 to 3600")
    return seconds
