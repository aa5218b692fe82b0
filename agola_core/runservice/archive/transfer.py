"""Exports and imports a whole run service: its store, its active runs, and optionally logs and archives.

The active runs are a section of the export, read from the coordinator at the revision of the exported state. An import
restores them as finished and stopped. It also replaces the active runs in the coordinator: the switch leaves a mark,
and whoever uses the run service next first deletes the active runs of the old state.
"""

from __future__ import annotations

import enum
import hashlib
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Items
from datetime import UTC, datetime
from typing import IO

import msgspec
from msgspec.structs import replace

from agola_core import maintenance
from agola_core.coordinator.port import Compare, Coordinator, DeleteOp, Op, PutOp, iterate
from agola_core.datamanager import (
    Compression,
    DataManager,
    ExportFormat,
    ExportItem,
    ExportResult,
    ImportResult,
    Moment,
    PastStore,
    Put,
)
from agola_core.errors import AgolaError, BadRequestError, NotFoundError
from agola_core.objectstorage.port import check_portable
from agola_core.runservice.archive.agola_form import agola_data, check_object
from agola_core.runservice.archive.projection import DATA_TYPES, RUN
from agola_core.runservice.model import object_paths
from agola_core.runservice.model.types import (
    ExecutorPhase,
    FetchPhase,
    Run,
    RunPhase,
    RunResult,
    RunTask,
    RunTaskStep,
    TaskStatus,
)
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.store import RunStore
from agola_core.runtime import faultpoints
from agola_core.runtime.progress import Progress, ignore
from agola_core.sequence import Sequence

faultpoints.declare("import.before-object", "import.before-undo", "import.before-reset")

ACTIVE_RUNS = "activeruns"
STOP_REASON = "the run was active when the store was exported"

_SPOOL_BYTES = 8 << 20
_PART = 100
_KEPT = (
    maintenance.KEY,
    run_keys.INSTANCES,
    run_keys.EXECUTORS,
    run_keys.ALIVE,
    run_keys.LOCKS,
    run_keys.COUNTER,
    run_keys.RESET,
)
_decode_run = msgspec.json.Decoder(Run).decode
_encode = msgspec.json.Encoder().encode


class Include(enum.StrEnum):
    """What an export can include besides the store; the names of sections."""

    LOGS = "logs"
    ARCHIVES = "archives"

    @property
    def prefix(self) -> str:
        """The prefix of the objects' paths."""
        return {Include.LOGS: object_paths.LOGS, Include.ARCHIVES: object_paths.ARCHIVES}[self]


def parse_include(text: str) -> frozenset[Include]:
    """Parse a comma-separated list.

    Raises:
        BadRequestError: An item is unknown.
    """
    try:
        return frozenset(Include(name.strip()) for name in text.split(",") if name.strip())
    except ValueError as error:
        known = ", ".join(Include)
        raise BadRequestError(f"include takes any of {known}, not {text[:40]!r}") from error


def export(
    datamanager: DataManager | PastStore,
    file: IO[bytes],
    form: ExportFormat = ExportFormat.NATIVE,
    *,
    compression: Compression = Compression.NONE,
    include: Iterable[Include] = (),
    progress: Progress = ignore,
) -> ExportResult:
    """Write an export of a run service (see `DataManager.export`).

    Args:
        datamanager: Its store, or its past state: then without active runs, and with those logs and archives that
            are still stored.
        file: A binary file.
        form: The native format, or Agola 0.2's, which holds archived runs alone.
        compression: How to compress it, if at all.
        include: What to add to the native format.
        progress: Told of entries and bytes.
    """
    parts = _Export(datamanager, form, include)
    return datamanager.export(file, form, compression=compression, parts=parts, progress=progress)


def export_stream(
    datamanager: DataManager,
    form: ExportFormat,
    *,
    compression: Compression = Compression.NONE,
    include: Iterable[Include] = (),
    at: Moment | None = None,
) -> Iterator[bytes]:
    """Yield an export of the current state, or of a past moment (see `export`)."""
    if at is None:
        return datamanager.export_stream(form, compression=compression, parts=_Export(datamanager, form, include))
    return _past_stream(datamanager, form, compression, include, at)


def _past_stream(
    datamanager: DataManager, form: ExportFormat, compression: Compression, include: Iterable[Include], at: Moment
) -> Iterator[bytes]:
    name = f"{datamanager.options.instance}-{uuid.uuid4().hex}"
    with PastStore(datamanager.coordinator, datamanager.storage, DATA_TYPES, at, name=name) as past:
        yield from past.export_stream(form, compression=compression, parts=_Export(past, form, include))


def import_(
    datamanager: DataManager, file: IO[bytes], *, dry_run: bool = False, progress: Progress = ignore
) -> ImportResult:
    """Replace the whole content of a run service with an export, or change nothing (see `DataManager.import_`).

    Raises:
        BadRequestError: The service is not in maintenance mode, or the stream is invalid.
        ConflictError: An instance is not in maintenance mode yet, or another process has the store open.
    """
    result = datamanager.import_(file, dry_run=dry_run, parts=_Import(datamanager), progress=progress)
    if not dry_run:
        finish_import(datamanager.coordinator)
    return result


class _Export:
    """The parts of a run service's export besides its objects (see `datamanager.export.ExportParts`)."""

    def __init__(self, source: DataManager | PastStore, form: ExportFormat, include: Iterable[Include]) -> None:
        self._include = sorted(include)
        if form is ExportFormat.AGOLA and self._include:
            raise BadRequestError("Agola's format has no place for " + ", ".join(self._include))
        self._coordinator = source.coordinator if isinstance(source, DataManager) else None
        self._storage = source.storage
        if self._coordinator is not None:
            finish_import(self._coordinator)

    def agola_data(self, data_type: str, data: bytes) -> bytes:
        """Return an object as Agola stores it."""
        return agola_data(data_type, data)

    def sections(self, revision: int) -> Iterator[tuple[str, Iterator[ExportItem]]]:
        """Yield the sections: active runs, then what is included."""
        if self._coordinator is not None:
            yield from self._active_runs(self._coordinator, revision)
        for name in self._include:
            yield name, self._objects(name)

    def _active_runs(self, coordinator: Coordinator, revision: int) -> Iterator[tuple[str, Iterator[ExportItem]]]:
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            # Read now: the coordinator may not keep the revision for as long as a client reads.
            for run in RunStore(coordinator, 0).runs(revision):
                spool.write(_encode(run) + b"\n")
            spool.seek(0)
            yield ACTIVE_RUNS, ((_decode_run(line).id, iter((line[:-1],))) for line in spool)

    def _objects(self, name: Include) -> Iterator[ExportItem]:
        for info in self._storage.list(name.prefix):
            try:
                data = self._storage.open_stream(info.path)
            except NotFoundError:  # deleted meanwhile: no run of the export needs it
                continue
            yield info.path, data


class _Import:
    """What an import of a run service takes (see `datamanager.importer.ImportParts`)."""

    sections = frozenset({ACTIVE_RUNS, *Include})

    def __init__(self, datamanager: DataManager) -> None:
        self._coordinator = datamanager.coordinator
        self._storage = datamanager.storage
        self._store = datamanager.options.instance
        self._newest = Sequence(0, 0)
        self._written: list[str] = []

    def barrier(self) -> Items[Compare]:
        """Return the conditions under which no instance serves."""
        return maintenance.barrier(self._coordinator, self._store)

    def check(self, data_type: str, object_id: str, data: bytes) -> None:
        """Check a record and remember the newest run."""
        check_object(data_type, object_id, data)
        if data_type == RUN:
            self._note(object_id)

    def take(self, section: str, item: str, pieces: Iterator[bytes], *, dry_run: bool) -> Put | None:
        """Import an active run or an object."""
        if section == ACTIVE_RUNS:
            run = check_object(RUN, item, b"".join(pieces))
            self._note(item)
            return Put(RUN, item, _encode(stopped(run, datetime.now(UTC))))
        if not item.startswith(Include(section).prefix):
            raise BadRequestError(f"the path does not begin with {Include(section).prefix!r}")
        self._take_object(check_portable(item), pieces, dry_run=dry_run)
        return None

    def operations(self) -> Items[Op]:
        """Return the operation that marks the active runs of the old state for removal."""
        return [PutOp(run_keys.RESET, str(self._newest).encode())]

    def undo(self) -> None:
        """Delete the objects that were written."""
        for path in self._written:
            faultpoints.reach("import.before-undo")
            try:
                self._storage.delete(path)
            except AgolaError:  # without a reference it is deleted later
                continue

    def _note(self, run_id: str) -> None:
        try:
            self._newest = max(self._newest, Sequence.parse(run_id))
        except AgolaError:
            raise BadRequestError("a run's id is a sequence") from None

    def _take_object(self, path: str, pieces: Iterator[bytes], *, dry_run: bool) -> None:
        try:
            stored = _digest(self._storage.open_stream(path))
        except NotFoundError:
            if dry_run:
                _digest(pieces)
                return
            faultpoints.reach("import.before-object")
            self._storage.write(path, pieces)
            self._written.append(path)
            return
        if _digest(pieces) != stored:
            raise BadRequestError("the storage has another object under this path")


def stopped(run: Run, now: datetime) -> Run:
    """Return an active run as an import restores it: finished, as stopped."""

    def end(task: RunTask) -> RunTask:
        if task.status.is_finished:
            status, reason, ended = task.status, task.reason, task.end_time
        elif task.status is TaskStatus.RUNNING:
            status, reason, ended = TaskStatus.STOPPED, STOP_REASON, now
        else:
            status, reason, ended = TaskStatus.CANCELLED, STOP_REASON, None
        fetched = dict(zip(task.workspace_archives, task.workspace_archives_phase, strict=False))
        lost = [step for step in task.workspace_archives if fetched.get(step) is not FetchPhase.FINISHED]
        return replace(
            task,
            status=status,
            reason=reason,
            end_time=ended,
            waiting_approval=False,
            setup_step=_ended(task.setup_step, now),
            steps=[_ended(step, now) for step in task.steps],
            workspace_archives_phase=[FetchPhase.FINISHED for _ in task.workspace_archives],
            archives_lost=sorted({*task.archives_lost, *lost}),
        )

    if run.phase.is_finished:
        return replace(run, archived=True)
    return replace(
        run,
        phase=RunPhase.FINISHED,
        result=run.result if run.result.is_set else RunResult.STOPPED,
        stop=True,
        end_time=now,
        annotations={**run.annotations, "stopped": STOP_REASON},
        tasks={task_id: end(task) for task_id, task in run.tasks.items()},
        archived=True,
    )


def _ended(step: RunTaskStep, now: datetime) -> RunTaskStep:
    """Return a step of an active run as an import restores it: a log not in storage is lost."""
    if step.phase is ExecutorPhase.RUNNING:
        step = replace(step, phase=ExecutorPhase.STOPPED, end_time=now)
    if step.phase in {None, ExecutorPhase.NOT_STARTED} or step.log_phase is FetchPhase.FINISHED:
        return replace(step, log_phase=FetchPhase.FINISHED)
    return replace(step, log_phase=FetchPhase.FINISHED, log_lost=True)


def finish_import(coordinator: Coordinator) -> None:
    """Delete active runs of the state that an import has replaced, if any remain."""
    while (mark := coordinator.get(run_keys.RESET)) is not None:
        fence = Compare(run_keys.RESET, mark.mod_revision)
        going = [item.key for item in iterate(coordinator, run_keys.PREFIX) if not item.key.startswith(_KEPT)]
        for start in range(0, len(going), _PART):
            faultpoints.reach("import.before-reset")
            coordinator.txn([fence], [DeleteOp(key) for key in going[start : start + _PART]])
        counter = coordinator.get(run_keys.COUNTER)
        newest = Sequence.parse(mark.value.decode())
        if counter is not None:
            newest = max(newest, Sequence.parse(counter.value.decode()))
        faultpoints.reach("import.before-reset")
        unmoved = Compare(run_keys.COUNTER, counter.mod_revision if counter else 0)
        coordinator.txn(
            [fence, unmoved],
            [
                PutOp(run_keys.COUNTER, str(newest).encode()),
                PutOp(run_keys.GROUPS_FLOOR, str(mark.mod_revision).encode()),  # older tokens are refused
                DeleteOp(run_keys.RESET),
            ],
        )


def _digest(pieces: Iterable[bytes]) -> bytes:
    digest = hashlib.blake2b()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
