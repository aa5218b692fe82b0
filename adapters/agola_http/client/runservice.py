"""Client of a run service over HTTP, with the methods of `RunService` and the errors that it raises; and of its store.

Example:
    >>> from agola_http.client import Client
    >>> with Client("http://127.0.0.1:4000", token="...") as client:      # doctest: +SKIP
    ...     for run in client.iterate_runs(RunQuery(groups=("/project/p1",))):
    ...         print(run.id, run.phase)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from agola_core.errors import NotFoundError, UnavailableError
from agola_core.runservice.model.reports import RunTests
from agola_core.runservice.model.requests import (
    WHOLE_LOG,
    LogPart,
    RunActionsRequest,
    RunActionType,
    RunBundle,
    RunCreateRequest,
    RunQuery,
    RunTaskActionsRequest,
    RunTaskActionType,
)
from agola_core.runservice.model.types import Executor, Run, RunEvent, RunPhase
from agola_http.client.event_stream import read_events
from agola_http.client.store import StoreClient, decoded
from agola_http.outbound.connection import Params
from agola_http.outbound.transport import Transport
from agola_http.protocol.names import OFFSET_HEADER, PREFIX
from agola_http.protocol.records import (
    MAX_LIMIT,
    GetRunsResponse,
    RunResponse,
    Source,
)

T = TypeVar("T")

_CHUNK = 1 << 18
_ASK_SECONDS = 0.2


class Client(StoreClient):
    """A client of one run service and its store. Thread-safe; a context manager.

    Every method raises what the server raised, `UnavailableError` when it cannot be reached or breaks off, and
    `DeadlineError` when the time is over. Only calls that change nothing are retried automatically.

    Args:
        url: The service, such as `http://127.0.0.1:4000`.
        token: A client's or an admin's token; "" where the service asks for none.
        timeout: Seconds that a call may take in total, and that a stream may be silent.
        retries: How often a call that changes nothing is retried while the service is unavailable.
        authority: A PEM file of the authority that signed the service's certificate, in addition to the known ones.

    Raises:
        BadRequestError: The URL is malformed.
    """

    def __init__(
        self, url: str, token: str = "", *, timeout: float = 30.0, retries: int = 3, authority: Path | None = None
    ) -> None:
        super().__init__(Transport(url, token, timeout=timeout, retries=retries, authority=authority))

    # Runs

    def create_run(self, request: RunCreateRequest) -> RunBundle:
        """Create a run, or restart one (see `RunService.create_run`)."""
        response = self._call("POST", "/runs", RunResponse, body=request)
        return RunBundle(response.run, response.run_config)

    def get_run(self, run_id: str) -> RunBundle:
        """Return a run, active or archived, with its configuration.

        Raises:
            NotFoundError: There is no such run.
        """
        response = self._call("GET", f"/runs/{_segment(run_id)}", RunResponse)
        return RunBundle(response.run, response.run_config)

    def find_run(self, run_id: str) -> Run | None:
        """Return a run, active or archived; None when there is none."""
        try:
            return self.get_run(run_id).run
        except NotFoundError:
            return None

    def list_runs(self, query: RunQuery) -> list[Run]:
        """Return runs, active and archived, ordered by id; requests as many pages as the query's limit needs."""
        runs: list[Run] = []
        while len(runs) < query.limit:
            wanted = min(query.limit - len(runs), MAX_LIMIT)
            start = runs[-1].id if runs else query.start
            page = self._call("GET", "/runs", GetRunsResponse, _query_params(query, start, wanted)).runs
            runs += page
            if len(page) < wanted:
                break
        return runs

    def iterate_runs(self, query: RunQuery) -> Iterator[Run]:
        """Yield all runs of a query, page by page; its limit is the size of a page."""
        size = min(query.limit, MAX_LIMIT)
        while page := self.list_runs(replace(query, limit=size)):
            yield from page
            query = replace(query, start=page[-1].id)

    def wait_change(self, run: Run, timeout: float) -> Run:
        """Return a run once it has changed, or when the time is over; polls the service.

        Args:
            run: The last known state of the run.
            timeout: Seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            current = self.get_run(run.id).run
            left = deadline - time.monotonic()
            if current != run or left <= 0:
                return current
            time.sleep(min(left, _ASK_SECONDS))

    def change_run_phase(self, run_id: str, phase: RunPhase, token: str = "") -> None:
        """Start or cancel a queued run (see `RunService.change_run_phase`)."""
        self._run_action(run_id, RunActionType.CHANGE_PHASE, phase, token)

    def stop_run(self, run_id: str, token: str = "") -> None:
        """Stop a running run (see `RunService.stop_run`)."""
        self._run_action(run_id, RunActionType.STOP, None, token)

    def approve_task(self, run_id: str, task_id: str, token: str = "") -> None:
        """Approve a task that waits for it (see `RunService.approve_task`)."""
        self._task_action(run_id, task_id, RunTaskActionType.APPROVE, None, token)

    def set_annotations(self, run_id: str, task_id: str, annotations: dict[str, str], token: str = "") -> None:
        """Replace a task's annotations (see `RunService.set_annotations`)."""
        self._task_action(run_id, task_id, RunTaskActionType.SET_ANNOTATIONS, annotations, token)

    def delete_run(self, run_id: str) -> None:
        """Delete a finished run and the data that only it uses (see `RunService.delete_run`)."""
        self._transport.call("DELETE", f"{PREFIX}/runs/{_segment(run_id)}")

    def change_groups_token(self, groups: Iterable[str]) -> str:
        """Return the token of change groups."""
        return self._call("GET", "/changegroups", str, [("changegroup", group) for group in groups])

    def watch_events(self, after: str = "") -> Iterator[RunEvent]:
        """Yield run events as they happen; reconnects when the connection breaks, without losing or repeating an event.

        Ends when the service ends.

        Args:
            after: The sequence of the last known event; "" for events from now on.

        Raises:
            BadRequestError: `after` is not a sequence.
            UnavailableError: The service stays unavailable.
        """
        seen, failures = after, 0
        while True:
            try:
                with self._transport.pieces(f"{PREFIX}/events", [("after", seen)] if seen else []) as pieces:
                    for event in read_events(pieces):
                        failures = 0
                        if event.name == "shutdown":
                            return
                        seen = event.id
                        if event.name == "run":
                            yield decoded(event.data, RunEvent)
                raise UnavailableError("the run events broke off")
            except UnavailableError:
                failures += 1
                if failures > self._transport.retries:
                    raise
                time.sleep(_ASK_SECONDS * 2**failures)

    # Logs and sources

    def open_log(
        self, run_id: str, task_id: str, step: int | None, *, follow: bool = False, part: LogPart = WHOLE_LOG
    ) -> Iterator[bytes]:
        """Yield a step's log, and with `follow` what is added until the step has ended.

        Args:
            run_id: The run.
            task_id: The task.
            step: The step's number; None for the set-up.
            follow: Wait for the step to begin, and continue until it has ended.
            part: Which lines, and whether with their times; older services send the whole log without them.

        Raises:
            NotFoundError: There is no such run, task, step or log.
        """
        params = _log_params(run_id, task_id, step, part)
        if follow:
            params.append(("follow", ""))
        with self._transport.pieces(f"{PREFIX}/logs", params, endless=follow) as pieces:
            yield from pieces

    def log_begin(self, run_id: str, task_id: str, step: int | None, part: LogPart) -> int:
        """Return the byte of a step's log at which a part of it begins; 0 for a log that is not there."""
        params = _log_params(run_id, task_id, step, part)
        try:
            headers, pieces = self._transport.stream(f"{PREFIX}/logs", params)
        except NotFoundError:
            return 0
        with closing(pieces):  # type: ignore[type-var]
            return int(headers.get(OFFSET_HEADER, "0"))

    def open_archive(self, run_id: str, task_id: str, step: int) -> Iterator[bytes]:
        """Yield the archive of the files that a step saved to the workspace.

        Raises:
            NotFoundError: There is no such run, task or archive.
        """
        params = [("runid", run_id), ("taskid", task_id), ("step", str(step))]
        with self._transport.pieces(f"{PREFIX}/archives", params) as pieces:
            yield from pieces

    def run_tests(self, bundle: RunBundle) -> RunTests:
        """Return what the tasks of a run have reported about tests and coverage, as far as their archives are stored.

        Raises:
            NotFoundError: There is no such run.
        """
        return self._call("GET", f"/runs/{_segment(bundle.run.id)}/tests", RunTests)

    def put_source(self, data: Iterable[bytes]) -> str:
        """Store a source archive for later runs, and return its id."""
        return self._call("POST", "/sources", Source, content=data).id

    # Executors

    def executors(self) -> list[Executor]:
        """Return the registered executors."""
        return self._call("GET", "/executors", list[Executor])

    def delete_executor(self, executor_id: str) -> None:
        """Remove an executor; its unfinished tasks fail, or are retried on another one."""
        self._transport.call("DELETE", f"{PREFIX}/executors/{_segment(executor_id)}")

    # Helpers

    def _run_action(self, run_id: str, action: RunActionType, phase: RunPhase | None, token: str) -> None:
        asked = RunActionsRequest(action, phase.value if phase else "", token)
        self._transport.call("PUT", f"{PREFIX}/runs/{_segment(run_id)}/actions", content=msgspec.json.encode(asked))

    def _task_action(
        self, run_id: str, task_id: str, action: RunTaskActionType, annotations: dict[str, str] | None, token: str
    ) -> None:
        asked = RunTaskActionsRequest(action, annotations, token)
        path = f"{PREFIX}/runs/{_segment(run_id)}/tasks/{_segment(task_id)}/actions"
        self._transport.call("PUT", path, content=msgspec.json.encode(asked))


def _log_params(run_id: str, task_id: str, step: int | None, part: LogPart) -> list[tuple[str, str]]:
    return [
        ("runid", run_id),
        ("taskid", task_id),
        ("setup", "") if step is None else ("step", str(step)),
        *([("timestamps", "")] if part.timestamps else []),
        *([("since", part.since.astimezone(UTC).isoformat())] if part.since else []),
        *([("tail", str(part.tail))] if part.tail is not None else []),
        *([("offset", str(part.offset))] if part.offset else []),
    ]


def _query_params(query: RunQuery, start: str, limit: int) -> Params:
    return [
        *(("phase", phase.value) for phase in query.phases),
        *(("result", result.value) for result in query.results),
        *(("group", group) for group in query.groups),
        *(("event", event) for event in query.events),
        *([("start", start)] if start else []),
        ("limit", str(limit)),
        *([("asc", "")] if query.ascending else []),
        *([("lastrun", "")] if query.last_run else []),
    ]


def _segment(text: str) -> str:
    """Return an id as one segment of a path.

    Raises:
        NotFoundError: No path can contain such an id, so nothing has it.
    """
    if not text or "/" in text or text in {".", ".."}:
        raise NotFoundError(f"{text!r} doesn't exist")
    return quote(text, safe="")
