"""Client of a run service over HTTP, with the methods of `RunService` and the errors that it raises.

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
from typing import IO, TypeVar
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from agola_core.datamanager import Checkpoint, Compacted, Compression, ExportFormat, Garbage, ImportResult
from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import InternalError, NotFoundError, UnavailableError
from agola_core.maintenance import MaintenanceStatus
from agola_core.runservice.archive.transfer import Include
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
from agola_core.runtime.closing import Closing
from agola_http.client.event_stream import read_events
from agola_http.outbound.connection import Params
from agola_http.outbound.transport import Transport
from agola_http.protocol.names import JSON, OFFSET_HEADER, PREFIX
from agola_http.protocol.records import (
    MAX_LIMIT,
    Checkpointed,
    GetRunsResponse,
    RunResponse,
    ServiceStatus,
    Source,
    Version,
)

T = TypeVar("T")

_CHUNK = 1 << 18
_ASK_SECONDS = 0.2


class Client(Closing):
    """A client of one run service. Thread-safe; a context manager.

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
        self._transport = Transport(url, token, timeout=timeout, retries=retries, authority=authority)

    def close(self) -> None:
        """Close the connections. Closing twice is harmless."""
        self._transport.close()

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
                            yield _decoded(event.data, RunEvent)
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

    # Operations

    def executors(self) -> list[Executor]:
        """Return the registered executors."""
        return self._call("GET", "/executors", list[Executor])

    def delete_executor(self, executor_id: str) -> None:
        """Remove an executor; its unfinished tasks fail, or are retried on another one."""
        self._transport.call("DELETE", f"{PREFIX}/executors/{_segment(executor_id)}")

    def status(self) -> ServiceStatus:
        """Return the state of the store, its last export and its last verify."""
        return self._call("GET", "/status", ServiceStatus)

    def version(self) -> Version:
        """Return the version of the service."""
        return _decoded(self._transport.call("GET", "/version").content, Version)

    def checkpoints(self) -> list[Checkpoint]:
        """Return the retained checkpoints, oldest first."""
        return self._call("GET", "/checkpoints", list[Checkpoint])

    def checkpoint(self) -> Checkpointed:
        """Make a checkpoint now."""
        return _decoded(self._transport.call("POST", f"{PREFIX}/checkpoints", patient=True).content, Checkpointed)

    def compact(self) -> Compacted:
        """Rewrite the whole store, without deleted and replaced objects."""
        return _decoded(self._transport.call("POST", f"{PREFIX}/compactions", patient=True).content, Compacted)

    def collect_garbage(self, *, dry_run: bool = False) -> list[Garbage]:
        """Delete objects in storage that nothing refers to, and return them.

        Args:
            dry_run: Only return them.
        """
        params = [("dry_run", "")] if dry_run else []
        response = self._transport.call("POST", f"{PREFIX}/garbage", params, patient=True)
        return _decoded(response.content, list[Garbage])

    def maintenance_status(self) -> MaintenanceStatus:
        """Return the mode and the state of each instance."""
        return self._call("GET", "/maintenance", MaintenanceStatus)

    def enable_maintenance(self) -> None:
        """Turn maintenance mode on.

        Raises:
            BadRequestError: It is already on.
        """
        self._transport.call("PUT", f"{PREFIX}/maintenance")

    def disable_maintenance(self) -> None:
        """Turn maintenance mode off.

        Raises:
            BadRequestError: It is already off.
        """
        self._transport.call("DELETE", f"{PREFIX}/maintenance")

    def export_stream(
        self,
        form: ExportFormat = ExportFormat.NATIVE,
        compression: Compression = Compression.NONE,
        include: Iterable[Include] = (),
        at: str = "",
    ) -> Iterator[bytes]:
        """Yield the whole store as one consistent snapshot.

        Args:
            form: The native format, or Agola 0.2's.
            compression: Compression of the stream.
            include: Parts to add to the native format.
            at: A past moment: a sequence, or a time with its zone; "" for now.

        Raises:
            UnavailableError: The stream was cut off: the bytes so far are not a valid export.
        """
        params = [("format", form.value), ("packing", compression.value), ("include", ",".join(sorted(include)))]
        params += [("at", at)] if at else []
        with self._transport.pieces(f"{PREFIX}/export", params) as pieces:
            yield from pieces

    def import_(self, file: IO[bytes], *, dry_run: bool = False) -> ImportResult:
        """Replace the content of the store by an export, or change nothing; return what was imported.

        The service must be in maintenance mode.

        Args:
            file: A binary file.
            dry_run: Only check it.

        Raises:
            BadRequestError: The stream is not a valid export, or the service is not in maintenance mode.
        """
        params = [("result", ""), *([("dry_run", "")] if dry_run else [])]
        pieces = iter(lambda: file.read(_CHUNK), b"")
        response = self._transport.call("POST", f"{PREFIX}/import", params, pieces, patient=True)
        return _decoded(response.content, ImportResult)

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

    def _call(
        self,
        method: str,
        path: str,
        kind: type[T],
        params: Params = (),
        *,
        body: object = None,
        content: Iterable[bytes] | None = None,
    ) -> T:
        headers = {"Content-Type": JSON} if body is not None else {}
        data = msgspec.json.encode(body) if body is not None else content
        response = self._transport.call(method, PREFIX + path, params, data, headers, patient=content is not None)
        return _decoded(response.content, kind)


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
        *([("start", start)] if start else []),
        ("limit", str(limit)),
        *([("asc", "")] if query.ascending else []),
        *([("lastrun", "")] if query.last_run else []),
    ]


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except DECODE_ERRORS as error:
        raise InternalError(f"the service answered with what it should not: {error}") from error


def _segment(text: str) -> str:
    """Return an id as one segment of a path.

    Raises:
        NotFoundError: No path can contain such an id, so nothing has it.
    """
    if not text or "/" in text or text in {".", ".."}:
        raise NotFoundError(f"{text!r} doesn't exist")
    return quote(text, safe="")
