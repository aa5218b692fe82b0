"""Finds runs: by the names that users type, page by page, and those that a queued run waits for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from agola_core.errors import BadRequestError, NotFoundError
from agola_core.runservice.model.requests import RunQuery
from agola_core.runservice.model.types import Run, RunPhase

if TYPE_CHECKING:
    from agola_cli.connect.target import Service

_PAGE = 40
_MOST = 10_000
_LAST = re.compile(r"last(\^*)(?:~([0-9]{1,4}))?")
_NUMBER = re.compile(r"#[0-9]{1,18}|[1-9][0-9]{0,11}")
_ID = re.compile(r"[0-9a-v]{13}-[0-9a-v]{13}")
_BEGINNING = re.compile(r"[0-9a-v-]+")


def resolve_run(service: Service, name: str) -> str:
    """Return the id of the run that a name means.

    Raises:
        NotFoundError: There is no such run.
        BadRequestError: Several runs have the number, or an id with this beginning.
    """
    if match := _LAST.fullmatch(name):
        return _last(service, name, len(match[1]) + int(match[2] or 0))
    if _NUMBER.fullmatch(name):
        number = int(name.lstrip("#"))
        found = [run for run in _newest(service) if run.counter == number]
    elif _BEGINNING.fullmatch(name) and not _ID.fullmatch(name):
        found = [run for run in _newest(service) if run.id.startswith(name)]
    else:
        return name
    if not found:
        raise NotFoundError(f"no run {name!r}: see agola-core runs list")
    if len(found) > 1:
        several = ", ".join(f"{run.id} ({run.group})" for run in found[:5])
        count = "more than five" if len(found) > 5 else str(len(found))
        reason = "each user and project counts its own" if _NUMBER.fullmatch(name) else "give more of the id"
        raise BadRequestError(f"{name!r} is {count} runs, {reason}: {several}")
    return found[0].id


def pages(service: Service, query: RunQuery) -> Iterator[Run]:
    """Yield the runs of a query, whatever its limit, page by page."""
    start = ""
    while True:
        page = service.list_runs(replace(query, start=start, limit=_PAGE))
        yield from page
        if len(page) < _PAGE:
            return
        start = page[-1].id


def runs_before(service: Service, run: Run) -> list[Run]:
    """Return the active runs that a queued run waits for: those of its group that were made before it."""
    if run.phase is not RunPhase.QUEUED:
        return []
    query = RunQuery(phases=(RunPhase.QUEUED, RunPhase.RUNNING), groups=(run.group,))
    return [other for other in pages(service, query) if other.group == run.group and other.id < run.id]


def _newest(service: Service) -> Iterator[Run]:
    for number, run in enumerate(pages(service, RunQuery())):
        if number >= _MOST:
            return
        yield run


def _last(service: Service, name: str, before: int) -> str:
    found = service.list_runs(RunQuery(limit=before + 1))
    if not found:
        raise NotFoundError("nothing has run yet")
    if len(found) <= before:
        raise NotFoundError(f"no run {name!r}: there are {len(found)}")
    return found[before].id
