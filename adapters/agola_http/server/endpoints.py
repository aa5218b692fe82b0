"""The records of the route table: what an endpoint is, what its handler is given, what it answers."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.datastructures import Headers, QueryParams

from agola_core.errors import BadRequestError
from agola_core.runtime.context import Context
from agola_http.access.principals import Caller, Principal
from agola_http.protocol.names import JSON, NO_CACHE
from agola_http.server.request_json import encode

T = TypeVar("T")
_NO_PIECES: Iterator[bytes] = iter(())


class ParamKind(enum.StrEnum):
    """How a query parameter is read."""

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


@dataclass(frozen=True)
class Answer:
    """What a handler returns.

    Attributes:
        body: Bytes, or pieces that are pulled as the client takes them; an empty piece says "nothing yet". The
            head is sent with the first one, so that what fails before it is answered by a status.
        status: The status.
        headers: Further headers.
    """

    body: bytes | Iterator[bytes] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Call:
    """One request, as its handler sees it.

    Args:
        path: The path's variables.
        query: The query's parameters.
        headers: The headers.
        caller: Who calls.
        body: The decoded body of an endpoint that takes a record.
        upload: The pieces of the body of an endpoint that takes bytes; consumed once, in the handler's thread.
        context: Of an endpoint that takes bytes: ends when the client has left, or the server stops.
        same_machine: Whether it came from this machine.
        secure: Whether it came over TLS.
    """

    def __init__(
        self,
        path: Mapping[str, str],
        query: QueryParams,
        headers: Headers,
        caller: Caller,
        body: object = None,
        upload: Iterator[bytes] = _NO_PIECES,
        context: Context | None = None,
        *,
        same_machine: bool = False,
        secure: bool = False,
    ) -> None:
        self.path = path
        self.query = query
        self.headers = headers
        self.caller = caller
        self.upload = upload
        self.context = context or Context()
        self.same_machine = same_machine
        self.secure = secure
        self._body = body

    def record(self, kind: type[T]) -> T:
        """Return the body, which is a record of this type."""
        assert isinstance(self._body, kind)
        return self._body

    def text(self, name: str, default: str = "") -> str:
        """Return a query parameter, the first of its name."""
        values = self.query.getlist(name)
        return values[0] if values else default

    def texts(self, name: str) -> list[str]:
        """Return all query parameters of a name."""
        return self.query.getlist(name)

    def flag(self, name: str) -> bool:
        """Return whether a query parameter is there; `x`, `x=` and `x=false` are all true, as in Agola."""
        return name in self.query

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a query parameter that is a whole number.

        Args:
            name: The parameter.
            default: What it is when it is missing; None requires it.

        Raises:
            BadRequestError: It is missing or no whole number.
        """
        if name not in self.query and default is not None:
            return default
        return whole_number(self.text(name), name)

    @property
    def content_length(self) -> int | None:
        """The announced length of the body, where it is announced."""
        value = self.headers.get("content-length")
        return int(value) if value is not None else None


Handler = Callable[[Call], Answer]


@dataclass(frozen=True)
class Endpoint:
    """One row of the route table.

    Attributes:
        method: The method.
        path: The path, with variables in braces; each matches one segment of the decoded path.
        handler: Called in a worker thread.
        principal: Who may call it.
        summary: One line for people.
        tag: The area.
        params: The query parameters it knows; others are ignored.
        body: The record that its JSON body says.
        upload: The media type of a body of bytes; a form is small, and read before its handler is called.
        answer: The type of its JSON answer.
        media_type: The type of an answer of bytes.
        status: The status of success.
        errors: Statuses of errors beyond those that every endpoint may answer.
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


def json_answer(value: object, status: int = 200, *, newline: bool = False) -> Answer:
    """Return an answer of a JSON document.

    Args:
        value: Anything that msgspec encodes.
        status: The status.
        newline: End it with a newline, as two of Agola's endpoints do.
    """
    return Answer(encode(value) + (b"\n" if newline else b""), status, {"Content-Type": JSON})


def stream_answer(pieces: Iterator[bytes], media_type: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer that is streamed; its head is sent with its first piece, as Agola does.

    Args:
        pieces: Its body.
        media_type: What the body is: a browser that is not told guesses, and takes a log for a page.
        headers: Further headers.
    """
    return Answer(pieces, 200, {**NO_CACHE, "Content-Type": media_type, **(headers or {})})


_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


def whole_number(text: str, name: str) -> int:
    """Return the number that a parameter says.

    Raises:
        BadRequestError: It is none.
    """
    if not _WHOLE_NUMBER.fullmatch(text):
        raise BadRequestError(f"{name} must be a number, not {text[:40]!r}")
    return int(text)
