"""Types of the route table: an endpoint, the call that its handler receives, and streamed responses."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from agola_core.encoding import numerals
from agola_core.errors import BadRequestError
from agola_core.runservice.model.gojson import encode
from agola_core.runtime.context import Context
from agola_http.access.control import is_loopback
from agola_http.access.principals import Caller, Principal
from agola_http.protocol.names import JSON, NO_CACHE
from agola_http.server.connections.streams import StreamedResponse

S = TypeVar("S")
T = TypeVar("T")
_MARK = "_agola_http_rows"
_NOBODY = Caller()


class ParamKind(enum.StrEnum):
    """The type of a query parameter."""

    TEXT = "text"
    INTEGER = "integer"
    FLAG = "flag"  # its presence counts, whatever its value
    REPEATED = "repeated"


@dataclass(frozen=True)
class Param:
    """A query parameter."""

    name: str
    kind: ParamKind
    summary: str
    required: bool = False


class Call(HTTPConnection):
    """One request as its handler sees it: starlette's connection with the caller and the decoded body.

    Args:
        scope: The ASGI scope of the request.
        caller: The caller.

    Attributes:
        caller: The caller.
        body: The decoded body of an endpoint that takes a record.
        upload: The pieces of the body of an endpoint that takes bytes; consumed once, in the handler's thread.
        context: For an endpoint that takes bytes: cancelled when the client has left, or the server stops.
    """

    def __init__(self, scope: Scope, caller: Caller = _NOBODY) -> None:
        super().__init__(scope)
        self.caller = caller
        self.body: object = None
        self.upload: Iterator[bytes] = iter(())
        self.context = Context()

    @property
    def secure(self) -> bool:
        """Whether it came over TLS."""
        return self.scope.get("scheme") == "https"

    @property
    def same_machine(self) -> bool:
        """Whether it came from this machine: from loopback, or from the address that it came to."""
        client, server = self.scope.get("client") or ("",), self.scope.get("server") or ("",)
        return is_loopback(client[0]) or (bool(client[0]) and client[0] == server[0])

    def record(self, kind: type[T]) -> T:
        """Return the body as a record of this type."""
        assert isinstance(self.body, kind)
        return self.body

    def text(self, name: str, default: str = "") -> str:
        """Return the first query parameter of a name."""
        values = self.query_params.getlist(name)
        return values[0] if values else default

    def texts(self, name: str) -> list[str]:
        """Return all query parameters of a name."""
        return self.query_params.getlist(name)

    def flag(self, name: str) -> bool:
        """Return whether a query parameter is present; `x`, `x=` and `x=false` are all true, as in Agola."""
        return name in self.query_params

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a query parameter that is a whole number.

        Args:
            name: The parameter.
            default: The default; None if it is required.

        Raises:
            BadRequestError: It is missing or not a whole number.
        """
        if name not in self.query_params and default is not None:
            return default
        return whole_number(self.text(name), name)

    @property
    def content_length(self) -> int | None:
        """The Content-Length; None without one."""
        return numerals.whole_number(self.headers.get("content-length", ""))


Handler = Callable[[Call], Response]
H = TypeVar("H", bound=Callable[[Any, Call], Response])


@dataclass(frozen=True)
class Endpoint:
    """One row of the route table.

    Attributes:
        method: The method.
        path: The path, with variables in braces; each matches one segment of the decoded path.
        handler: Called in a worker thread.
        principal: The kind of caller that may call it.
        summary: One line for people.
        tag: The area.
        params: The known query parameters; others are ignored.
        body: The type of its JSON body.
        upload: The media type of a body of bytes; a form is small, and read before its handler is called.
        answer: The type of its JSON response.
        media_type: The media type of a response of bytes.
        status: The status on success.
        errors: Statuses of errors, in addition to those of every endpoint.
        waits: Whether its handler may wait for an executor: it then has one of the places of streams, so that it never
            keeps the threads that answer everybody.
        in_maintenance: Whether it is served in maintenance mode; the others answer 503 then.
        documented: Whether the OpenAPI document names it; pages for people are no interface.
    """

    method: str
    path: str
    handler: Handler
    principal: Principal
    summary: str
    tag: str
    params: tuple[Param, ...] = ()
    body: type | None = None
    upload: str | None = None
    answer: Any = None
    media_type: str | None = None
    status: int = 200
    errors: tuple[int, ...] = ()
    waits: bool = False
    in_maintenance: bool = False
    documented: bool = True


class Area(Generic[S]):
    """The handlers of one area of the interface: methods decorated with `endpoint`.

    Args:
        state: What they work on.

    Attributes:
        tag: The area's name in the OpenAPI document.
    """

    tag = ""

    def __init__(self, state: S) -> None:
        self._state = state

    def endpoints(self) -> list[Endpoint]:
        """Return the rows of this area in the order of its handlers; a handler's first line is its row's summary."""
        rows = []
        for name, handler in vars(type(self)).items():
            for marked in getattr(handler, _MARK, ()):
                summary = (handler.__doc__ or "").partition("\n")[0]
                rows.append(marked(handler=getattr(self, name), summary=summary, tag=self.tag))
        return rows


def endpoint(method: str, path: str, principal: Principal, **row: Any) -> Callable[[H], H]:
    """Decorate a method of an area as the handler of a row of the route table.

    Args:
        method: The method.
        path: The path (see `Endpoint`).
        principal: The kind of caller that may call it.
        row: Further fields of `Endpoint`.
    """

    def mark(handler: H) -> H:
        setattr(handler, _MARK, [partial(Endpoint, method, path, principal=principal, **row)])
        return handler

    return mark


def json_answer(value: object, status: int = 200, *, newline: bool = False) -> Response:
    """Return a JSON response.

    Args:
        value: Anything that msgspec encodes.
        status: The status.
        newline: End it with a newline, as two of Agola's endpoints do.
    """
    return Response(encode(value) + (b"\n" if newline else b""), status, {"Content-Type": JSON})


def stream_answer(pieces: Iterator[bytes], media_type: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a streamed response; its head is sent with the first piece, as in Agola.

    Args:
        pieces: Its body.
        media_type: The media type; without it, a browser would guess, and take a log for a page.
        headers: Further headers.
    """
    return StreamedResponse(pieces, {**NO_CACHE, "Content-Type": media_type, **(headers or {})})


_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


def whole_number(text: str, name: str) -> int:
    """Return the number in a parameter.

    Raises:
        BadRequestError: It is not a number.
    """
    if not _WHOLE_NUMBER.fullmatch(text):
        raise BadRequestError(f"{name} must be a number, not {text[:40]!r}")
    return int(text)
