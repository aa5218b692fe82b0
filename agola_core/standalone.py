"""A run service with its store and a host executor in one process: the base of `run` and `serve`."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from agola_core import embedded, private
from agola_core.address import StoreAddress
from agola_core.datamanager import DataManager, Options
from agola_core.errors import BadRequestError, ConflictError, MaintenanceError, NotFoundError, disk_error
from agola_core.executor import Executor, ExecutorOptions
from agola_core.executor.drivers.host import HostDriver
from agola_core.maintenance import Gate, Participant
from agola_core.runservice.archive.projection import DATA_TYPES, is_run_service
from agola_core.runservice.inprocess import InProcessClient, InProcessDirectory
from agola_core.runservice.model.options import ServiceOptions
from agola_core.runservice.model.protocol import ExecutorDirectory
from agola_core.runservice.service import RunService
from agola_core.runtime.context import Context
from agola_core.runtime.lazy import LazyModule
from agola_core.runtime.progress import Progress, ignore

if TYPE_CHECKING:
    from agola_core.executor.tasks import step_shell
else:
    step_shell = LazyModule("agola_core.executor.tasks.step_shell")

READDB_FILE = "readdb.db"
EXECUTOR_DIRECTORY = "executor"
DRAIN_SECONDS = 5.0


class Standalone:
    """A run service with its store and executor, opened and closed together. A context manager.

    It follows maintenance mode: when that begins, calls are drained and the service and the store's loops stop; when it
    ends, a new service starts. The executor continues: its tasks run, and report once the service is back.

    Args:
        where: The data directory, or the store's address with its data directory: one such service at a time uses it.
        executor: How the executor behaves.
        with_executor: Whether there is one in this process.
        remote: Finds executors that run elsewhere.
        service: How the run service behaves.
        drain: Seconds that calls have to end in before maintenance mode cuts them off.
        progress: Told of the rows of a build of the readdb.

    Attributes:
        datamanager: The store; open in maintenance mode, too.
        gate: Lets calls in while the service serves.
        executor: The executor of this process; None for none.
        driver: Runs its commands.

    Raises:
        ConflictError: Another service uses the directory.
        UnavailableError: The directory cannot be used.
    """

    def __init__(
        self,
        where: Path | StoreAddress,
        *,
        executor: ExecutorOptions | None = None,
        with_executor: bool = True,
        remote: ExecutorDirectory | None = None,
        service: ServiceOptions | None = None,
        drain: float = DRAIN_SECONDS,
        progress: Progress = ignore,
    ) -> None:
        address = StoreAddress.of(where, argument="data_dir")
        data_dir = address.data_directory.absolute()  # a step has another working directory
        with ExitStack() as opened:
            try:
                private.make_directories(data_dir)
                private.warn_when_open(data_dir)
                self._lock = opened.enter_context(private.lock_directory(data_dir, "data directory"))
            except OSError as error:
                raise disk_error(error, f"the data directory {str(data_dir)!r} cannot be used") from error
            except ConflictError as error:
                todo = "wait for its end, ask a service by its URL, or name another directory"
                raise ConflictError(f"{error}, a service or a run: {todo}") from error
            self.datamanager = open_store(msgspec.structs.replace(address, directory=data_dir), background=False)
            opened.callback(self.datamanager.close)
            self._readdb = data_dir / READDB_FILE
            self._drain = drain
            self._progress = progress
            self._service_options = service or ServiceOptions()
            self._directory = InProcessDirectory(remote)
            self.gate: Gate[RunService] = Gate("the service is in maintenance mode: try again later")
            self.executor: Executor | None = None
            self.driver = HostDriver()
            if with_executor:
                place = data_dir / EXECUTOR_DIRECTORY
                self.executor = Executor(place, InProcessClient(self.gate), self.driver, executor)
                self._directory.add(self.executor.id, self.executor)
            name = self.datamanager.options.instance
            self._participant = Participant(
                self.datamanager.coordinator, name, store=name, serve=self._serve, pause=self._pause
            )
            opened.pop_all()

    @property
    def service(self) -> RunService:
        """The run service.

        Raises:
            MaintenanceError: The service is in maintenance mode.
        """
        return self.gate.service

    def start(self) -> None:
        """Start the service, unless maintenance mode is on, then the executor."""
        self._participant.start()
        if self.executor is not None:
            self.executor.start()

    def end_streams(self) -> None:
        """Stop the tasks, so that followed logs end; part of a clean shutdown."""
        if self.executor is not None:
            self.executor.close()
        with suppress(MaintenanceError):
            self.service.end_waits()

    def kill(self) -> None:
        """Kill the tasks that run, at once; their processes are gone when this returns."""
        if self.executor is not None:
            self.executor.kill()

    def failed_step(self, task_id: str) -> step_shell.FailedStep:
        """Return the step that failed a task here, for a shell in its place; needs `ExecutorOptions.keep_failed`.

        Raises:
            NotFoundError: No step of the task failed here.
        """
        from agola_core.executor.tasks.step_shell import failed_step  # noqa: PLC0415 - few use it

        if self.executor is None:
            raise NotFoundError("there is no executor here")
        return failed_step(self.executor.directory_of(task_id), self.driver)

    def close(self) -> None:
        """Stop what runs, then everything; the store is left consistent."""
        if self.executor is not None:
            self.executor.close()
        self._participant.close()
        service = self.gate.close(0.0)
        if service is not None:
            service.close()
        self.datamanager.close()
        self._lock.close()

    def __enter__(self) -> Self:
        """Start and return the service."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self.close()

    def _serve(self, context: Context) -> None:
        self.datamanager.start_background_tasks()
        service = RunService(
            self.datamanager, self._readdb, self._directory, options=self._service_options, progress=self._progress
        )
        try:
            service.start(context)
            context.check()
        except BaseException:
            service.close()
            raise
        self.gate.open(service)

    def _pause(self) -> None:
        service = self.gate.close(self._drain)
        if service is not None:
            service.end_waits()
            service.close()
        self.datamanager.stop_background_tasks()


def open_store(
    where: Path | StoreAddress,
    *,
    background: bool = True,
    recover: bool = False,
    read_only: bool = False,
) -> DataManager:
    """Open the store of a run service; it is created if it does not exist.

    Args:
        where: The store's directory or address.
        background: Whether loops sync, checkpoint and clean.
        recover: Restore the state of the storage even if the coordinator has another.
        read_only: Open it without writing.

    Raises:
        BadRequestError: The store is another application's.
    """
    opened = embedded.open(
        where,
        data_types=DATA_TYPES,
        options=Options(background=background),
        recover=recover,
        read_only=read_only,
    )
    if not is_run_service(opened.stored_types):
        types = ", ".join(opened.stored_types)
        opened.close()
        raise BadRequestError(f"the store holds objects of the types {types}: it is no run service's")
    return opened


def open_reader(where: Path | StoreAddress, *, progress: Progress = ignore) -> tuple[DataManager, RunService]:
    """Open a run service's store for queries, while a service may be running on it.

    Without write access the store is only read, and its readdb is built in a temporary directory.

    Args:
        where: The data directory, or the store's address with it.
        progress: Told of the rows of a build of the readdb.
    """
    address = StoreAddress.of(where, argument="data_dir")
    data_dir = address.data_directory
    with ExitStack() as opened:
        datamanager = open_store(address, background=False, read_only=address.is_read_only())
        opened.callback(datamanager.close)
        readdb_directory = data_dir
        if not os.access(data_dir, os.W_OK):
            readdb_directory = Path(tempfile.mkdtemp(prefix="agola-readdb-"))
            opened.callback(shutil.rmtree, readdb_directory, ignore_errors=True)
        service = RunService(datamanager, readdb_directory / READDB_FILE, InProcessDirectory(), progress=progress)
        opened.pop_all()
    if readdb_directory != data_dir:
        weakref.finalize(service, shutil.rmtree, readdb_directory, ignore_errors=True)
    return datamanager, service
