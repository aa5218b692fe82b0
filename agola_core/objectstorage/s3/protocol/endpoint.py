"""Resolves a bucket's endpoint: host, path, region, TLS and proxy."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from agola_core.errors import BadRequestError
from agola_core.objectstorage.s3.auth.configuration import Configuration
from agola_core.objectstorage.s3.auth.signing import encoded_path
from agola_core.objectstorage.s3.protocol.connection import Proxy, Server
from agola_core.objectstorage.s3.url import S3Options

T = TypeVar("T")

_DEFAULT_REGION = "us-east-1"
_SECURE_PORT, _PLAIN_PORT = 443, 80


class Endpoint(NamedTuple):
    """An endpoint of one bucket.

    Attributes:
        server: Where connections lead.
        host: The value of the header Host.
        root: What the path of every request begins with.
        region: In which the bucket is.
    """

    server: Server
    host: str
    root: str
    region: str

    def path(self, key: str) -> str:
        """Return the path of a request for an object; "" for the bucket."""
        return f"{self.root}/{encoded_path(key)}" if key or not self.root else self.root


def endpoint_of(options: S3Options, configuration: Configuration) -> Endpoint:
    """Resolve the endpoint from the URL's options, else from the AWS configuration.

    Raises:
        BadRequestError: An endpoint is malformed, or a file of certificates cannot be used; names it.
    """
    region = options.region or configuration.get("region", "AWS_REGION", "AWS_DEFAULT_REGION") or _DEFAULT_REGION
    url = options.endpoint or configuration.get("endpoint_url", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    by_path = options.path_style
    if by_path is None:  # a wildcard certificate covers no dot in a bucket's name
        by_path = bool(url) or "." in options.bucket or options.bucket != options.bucket.lower()
    suffix = ".cn" if region.startswith("cn-") else ""
    parts = urlsplit(url or f"https://s3.{region}.amazonaws.com{suffix}")
    try:
        name, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadRequestError(f"the AWS configuration's endpoint {url!r} is malformed: {error}") from error
    if parts.scheme not in {"http", "https"} or not name:
        raise BadRequestError(f"the AWS configuration's endpoint {url!r} is not http(s)://HOST[:PORT]")
    host = f"[{name}]" if ":" in name else name
    if not by_path:
        host, name = f"{options.bucket}.{host}", f"{options.bucket}.{name}"
    usual = _SECURE_PORT if parts.scheme == "https" else _PLAIN_PORT
    tls = _trust(options, configuration) if parts.scheme == "https" else None
    root = parts.path.rstrip("/") + (f"/{options.bucket}" if by_path else "")
    server = Server(name, port or usual, tls, _proxy(parts.scheme, name, configuration.environment))
    return Endpoint(server, host if port in {None, usual} else f"{host}:{port}", root, region)


def _trust(options: S3Options, configuration: Configuration) -> ssl.SSLContext:
    bundle = options.tls_ca or configuration.get("ca_bundle", "AWS_CA_BUNDLE")
    context = _using("tls_ca", bundle, lambda: ssl.create_default_context(cafile=bundle or None))
    if not options.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.tls_cert:
        files = options.tls_cert, options.tls_key or None
        _using("tls_cert", options.tls_cert, lambda: context.load_cert_chain(*files, password=_no_password))
    return context


def _proxy(scheme: str, host: str, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy that the environment names for a host, as Python's own urllib reads it."""
    if not any(name.lower().endswith("_proxy") for name in environment):
        return None
    from urllib.request import getproxies_environment, proxy_bypass  # noqa: PLC0415 - slow to import

    url = getproxies_environment().get(scheme)
    if not url or proxy_bypass(host):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        where, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadRequestError(f"{scheme}_proxy in the environment is malformed") from error
    if parts.scheme != "http" or not where:
        raise BadRequestError(f"{scheme}_proxy in the environment is not http://HOST[:PORT]")
    authorization = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(user.encode()).decode()}"
    return Proxy(where, port or _PLAIN_PORT, authorization)


def _no_password() -> str:
    raise ValueError("its key is encrypted")


def _using(option: str, file: str, load: Callable[[], T]) -> T:
    try:
        return load()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or str(error)
        raise BadRequestError(f"option {option} of an s3:// URL: {file} cannot be used: {reason}") from error
