"""Templates, files and forms of the page."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.responses import Response

from agola_core.errors import BadRequestError, NotFoundError
from agola_http.protocol.errors import Told
from agola_http.server.application import RETRY_SECONDS
from agola_http.server.endpoints import Call

if TYPE_CHECKING:
    from jinja2 import Environment

HTML = "text/html; charset=utf-8"
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

_PACKED_BYTES, _LEVEL = 1000, 4

_WORDS = {
    "notstarted": "not started",
    "waiting": "waiting for approval",
    "ignored": "failed, ignored",
    "setuperror": "set-up error",
    "pull_request": "pull request",
}
"""How states and events are read, where that differs from how they are written."""


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - the client needs no templates

    environment = Environment(
        loader=PackageLoader("agola_http.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["words"] = lambda state: _WORDS.get(state, state)
    environment.filters["shortened"] = shortened
    return environment


def shortened(text: str, length: int) -> str:
    """Return a text of at most a length; what is left out is left out of its middle, as names differ at their ends."""
    left = (length - 1) // 2
    return text if len(text) <= length else f"{text[:left]}…{text[left + 1 - length :]}"


Values = Mapping[str, object]


def page(template: str, values: Values, status: int = 200) -> Response:
    """Return a response that a template makes.

    Args:
        template: Its file's name.
        values: What the template shows.
        status: The status.
    """
    body = _environment().get_template(template).render(values).encode(errors="replace")
    return Response(body, status, {"Content-Type": HTML, "Cache-Control": "no-cache"})


def packed(call: Call, response: Response) -> Response:
    """Return a response compressed for browsers that take it so."""
    if "gzip" in call.headers.get("accept-encoding", "") and len(response.body) > _PACKED_BYTES:
        body = gzip.compress(response.body, _LEVEL)
        headers = {**response.headers, "content-encoding": "gzip", "content-length": str(len(body))}
        response = Response(body, response.status_code, headers)
    response.headers["Vary"] = "Accept-Encoding"
    return response


def part(call: Call, template: str, values: Values, *, finished: bool = False) -> Response:
    """Return a part of a page, which script asks for again and again; 304 when it has it already.

    Args:
        call: The request.
        template: The part's file's name.
        values: What the template shows.
        finished: Whether it changes no more.
    """
    response = page(template, values)
    tag = f'"{hashlib.blake2b(response.body, digest_size=12).hexdigest()}"'
    if call.headers.get("if-none-match") == tag:
        response = Response(status_code=304, headers={"Cache-Control": "no-cache"})
    response = packed(call, response)
    response.headers.update({"X-Finished": "true" if finished else "false", "ETag": tag})
    return response


def static_file(name: str) -> Response:
    """Return one of the page's files.

    Raises:
        NotFoundError: There is no such file.
    """
    kind = next((kind for ending, kind in _TYPES.items() if name.endswith(ending)), None)
    target = files("agola_http.page") / "static" / name
    if kind is None or "/" in name or not target.is_file():
        raise NotFoundError(f"no file {name[:80]!r}")
    return Response(target.read_bytes(), 200, {"Content-Type": kind, "Cache-Control": "max-age=300"})


def error_page(told: Told, again: bool) -> Response:
    """Return the page that tells people of an error.

    Args:
        told: What they are told.
        again: Whether the browser asks again by itself.
    """
    shown = {"area": "", "signed_in": False, "status": told.status, "message": told.message}
    return page("error.html", {**shown, "again": RETRY_SECONDS if again else 0}, told.status)


def redirect(location: str) -> Response:
    """Return a response that sends the browser elsewhere on this site."""
    return Response(b"", 303, {"Location": location, "Cache-Control": "no-store"})


def form(pieces: Iterator[bytes]) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        BadRequestError: It is no form.
    """
    try:
        return dict(parse_qsl(b"".join(pieces).decode("ascii"), keep_blank_values=True, max_num_fields=50))
    except ValueError as error:
        raise BadRequestError("not a form") from error
