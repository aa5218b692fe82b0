"""Parses storage URLs, `SCHEME://BUCKET[/PREFIX][?OPTION=VALUE&...]`. A URL never contains a secret."""

from __future__ import annotations

import re
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from agola_core.errors import BadRequestError

T = TypeVar("T")

_MOST = 10**9  # of any option: seconds for decades
_ENDPOINT = re.compile(
    r"https?://(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._-]*)?"
)


def parse_options(url: str, kind: type[T], bucket: re.Pattern[str], what: str) -> T:
    """Parse a URL.

    Args:
        url: The URL.
        kind: The struct to fill: fields `bucket` and `prefix`, and one field for each option.
        bucket: The pattern of bucket names.
        what: The word for a bucket in messages, such as `S3 bucket`.

    Raises:
        BadRequestError: Something in it is malformed; names the option, and never its value when it is unknown.
    """
    scheme = url.partition("://")[0]
    a_url = f"{'an' if scheme[:1] in 'aeios' else 'a'} {scheme}:// URL"
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadRequestError(f"{a_url} is malformed: {error}") from error
    if "@" in parts.netloc:
        raise BadRequestError(f"{a_url} takes no credentials: they come from the environment (option credentials)")
    if not bucket.fullmatch(parts.netloc):
        raise BadRequestError(f"{parts.netloc!r} is no name of an {what}: expected {scheme}://BUCKET/PREFIX?OPTIONS")
    if parts.fragment:
        raise BadRequestError(f"{a_url} has no fragment: write '#' as %23")
    given: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in given:
            raise BadRequestError(f"option {name[:40]!r} of {a_url} is given twice")
        given[name] = value
    known = {field.name for field in msgspec.structs.fields(kind)} - {"bucket", "prefix"}  # type: ignore[arg-type]
    unknown = sorted(given.keys() - known)
    if unknown:
        raise BadRequestError(f"{a_url} has no option {unknown[0][:40]!r}; there are {', '.join(sorted(known))}")
    try:
        return msgspec.convert(
            {"bucket": parts.netloc, "prefix": unquote(parts.path).strip("/"), **given}, kind, strict=False
        )
    except msgspec.ValidationError as error:
        raise BadRequestError(f"{a_url} is malformed: {error}") from error


def check_endpoint(endpoint: str, scheme: str) -> None:
    """Raise `BadRequestError` for an endpoint that is no URL of a server; "" is none at all."""
    if endpoint and not (_ENDPOINT.fullmatch(endpoint) and _has_port_in_range(endpoint)):
        raise BadRequestError(f"option endpoint of {scheme}: expected http(s)://HOST[:PORT]")


def check_positive(options: object, names: tuple[str, ...], scheme: str) -> None:
    """Raise `BadRequestError` for an option that must be greater than 0."""
    for name in names:
        if not 0 < getattr(options, name) <= _MOST:
            raise BadRequestError(f"option {name} of {scheme} must be greater than 0, and at most {_MOST}")


def _has_port_in_range(endpoint: str) -> bool:
    try:
        return urlsplit(endpoint).port != 0
    except ValueError:
        return False
