"""The pod of a task on the host driver: a private directory, and the processes of its commands.

Every command runs in a session of its own under a small shell that writes its exit code to a file; its output goes to
a file, too. So it continues when the executor dies, and the next executor finds it. The shell begins the command only
when the executor has saved how to find it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agola_core.errors import NotFoundError, UnavailableError
from agola_core.executor.drivers.exitfile import BEGUN
from agola_core.executor.drivers.host.accounts import acting_as, find_account, groups_of, own_name
from agola_core.executor.drivers.host.bubblewrap import (
    Isolation,
    find_bubblewrap,
    launcher_environment,
    open_options,
    sandbox_options,
)
from agola_core.executor.drivers.host.cgroup import make_cgroup
from agola_core.executor.drivers.host.process import (
    HostProcess,
    end_task,
)
from agola_core.executor.drivers.host.process_table import MARKER
from agola_core.executor.drivers.port import Command, Note
from agola_core.executor.files import open_below, open_own
from agola_core.runservice.model.types import ArchiveContents, ExecutorPhase, ExecutorTask
from agola_core.runtime.processes.liveness import start_time

if TYPE_CHECKING:
    from agola_core.executor.archives.pack import Packed

# The shell begins the command only when it is told to, and it is told when it has been noted: nothing runs unknown.
# It outlives a polite end, for the command has some time for its own and leaves an exit code.
_WRAPPER = (
    "trap 'exit 143' TERM INT HUP; f=$1; shift; read -r _ || exit 125; trap : TERM INT HUP; "
    f'echo {BEGUN} >>"$f" || exit 125; "$@" </dev/null; c=$?; echo "$c" >>"$f"; exit "$c"'
)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 1 << 16


def script_file(directory: Path, exit_file: Path) -> Path:
    """Return where the script of a command lies.

    Args:
        directory: The task's.
        exit_file: The command's.
    """
    return directory / f"command-{exit_file.stem}"


def _make_directories(path: str) -> None:
    try:
        os.mkdir(path)  # noqa: PTH102 - mostly one is missing
    except OSError:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103


class HostPod:
    """A task's private directory (see `port.Pod`).

    Args:
        task: The task.
        directory: Its directory on the executor.
        path: The commands' PATH.
        isolation: The isolation of its commands.
        network: Whether isolated commands share the machine's network.
        closed: Called with the task's marker if closing the pod searched its control group alone.
    """

    def __init__(
        self,
        task: ExecutorTask,
        directory: Path,
        path: str,
        isolation: Isolation,
        network: bool,
        closed: Callable[[str], None],
    ) -> None:
        where = hashlib.blake2b(os.fsencode(directory), digest_size=6).hexdigest()  # another executor may be here
        self._marker = f"{task.id[:100]}-{task.attempt}-{where}"
        self._directory = directory
        self._path = path
        self._isolation = isolation
        self._network = network
        self._closed = closed
        self._cgroup = make_cgroup(self._marker)
        # All that it starts joins the group, or else is looked for; so is what an earlier executor started.
        self._all_joined = self._cgroup is not None and task.status.setup_step.phase is not ExecutorPhase.SUCCESS
        self._accounts: dict[str, pwd.struct_passwd | None] = {}
        self._variables: dict[str, dict[str, str]] = {}

    def variables(self, user: str) -> dict[str, str]:
        """Return a user's environment (see the port); creates the home directory."""
        account = self._account(user)
        found = self._variables[user] = {
            "PATH": self._path,
            "LANG": "C.UTF-8",
            "TMPDIR": self._private("tmp", account),
            "HOME": self._private("home", account),
            "USER": account.pw_name if account else own_name(),
            "SHELL": "/bin/sh",
            "CI": "true",
        }
        return found

    def start(self, command: Command, note: Note = lambda _: None) -> HostProcess:
        """Start a command (see the port)."""
        account = self._account(command.user)
        # Whoever starts a command has mostly just asked for them; a later command may need new directories.
        variables = self._variables.pop(command.user, None) or self.variables(command.user)
        full = {**variables, **command.environment, "HOME": variables["HOME"], MARKER: self._marker}
        try:
            with contextlib.ExitStack() as stack:
                self._open(command.working_dir, account, stack)
                scripts = [str(self._script(command, account))] if command.script else []
                line = [*command.argv, *scripts]
                passed: list[int] = []
                directory = command.working_dir
                if self._isolation is Isolation.BUBBLEWRAP:
                    passed.append(self._sandbox(command.working_dir, variables, scripts, full))
                    stack.callback(os.close, passed[0])
                    line = [find_bubblewrap(), "--args", str(passed[0]), "--", *line]
                    full, directory = launcher_environment(self._marker), "/"
                self._own(command.exit_file, account)
                log = open_own(command.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                stack.callback(os.close, log)
                hold, go = os.pipe()
                stack.callback(os.close, go)
                with os.fdopen(hold, "rb", buffering=0) as held:
                    child = subprocess.Popen(
                        ["/bin/sh", "-c", _WRAPPER, "agola-step", str(command.exit_file), *line],
                        stdin=held,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        cwd=directory,
                        env=full,
                        pass_fds=passed,
                        start_new_session=True,
                        user=account.pw_uid if account else None,
                        group=account.pw_gid if account else None,
                        extra_groups=groups_of(account) if account and os.geteuid() == 0 else None,
                    )
                process = HostProcess(
                    child.pid, start_time(child.pid) or 0, self._marker, command.exit_file, self._cgroup, child
                )
                self._join(child.pid)
                try:
                    note(process.describe())
                except BaseException:
                    child.kill()
                    child.wait()
                    raise
                with contextlib.suppress(BrokenPipeError):  # it was killed meanwhile
                    os.write(go, b"\n")
        except (OSError, ValueError) as error:
            raise UnavailableError(f"the step could not be started: {error}") from error
        return process

    def interact(self, argv: Sequence[str], environment: Mapping[str, str], working_dir: str, user: str) -> int:
        """Run a command of a person on this process's own standard streams, and return its exit code.

        Args:
            argv: The program and its arguments.
            environment: The task's own variables.
            working_dir: Absolute; created if missing.
            user: The user to run it; "" for this process's.

        Raises:
            UnavailableError: It cannot be started.
        """
        account, variables = self._account(user), self.variables(user)
        try:
            with contextlib.ExitStack() as stack:
                self._open(working_dir, account, stack)
            return subprocess.run(
                argv,
                check=False,
                cwd=working_dir,
                env={**variables, **environment, "HOME": variables["HOME"], MARKER: self._marker},
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=groups_of(account) if account and os.geteuid() == 0 else None,
            ).returncode
        except (OSError, ValueError) as error:
            raise UnavailableError(f"{argv[0]} could not be started: {error}") from error

    def read(self, path: str, user: str) -> Iterator[bytes]:
        """Yield a file (see the port)."""
        try:
            with acting_as(self._account(user)), contextlib.ExitStack() as stack:
                folder = self._open(os.path.dirname(path), None, stack, create=False)  # noqa: PTH120
                descriptor = os.open(os.path.basename(path), self._read_flags(), dir_fd=folder)  # noqa: PTH119
        except OSError as error:
            raise NotFoundError(f"cannot read {path!r}: {error.strerror}") from error
        try:
            while piece := os.read(descriptor, _CHUNK):
                yield piece
        except OSError as error:
            raise NotFoundError(f"cannot read {path!r}: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def pack(self, target: Path, contents: Iterable[ArchiveContents], working_dir: str, user: str) -> Packed:
        """Archive files of the pod (see the port)."""
        from agola_core.executor.archives.pack import write_archive  # noqa: PLC0415 - few use it

        account = self._account(user)

        def opened(path: str) -> int:
            with contextlib.ExitStack() as stack:
                return os.dup(self._open(path, None, stack, create=False))

        with target.open("wb") as file, acting_as(account):
            return write_archive(file.write, contents, working_dir, opened)

    def unpack(self, pieces: Iterable[bytes], directory: str, user: str, *, overwrite: bool) -> int:
        """Unpack an archive into the pod (see the port)."""
        from agola_core.executor.archives.unpack import unpack_into  # noqa: PLC0415 - few use it

        account = self._account(user)
        with contextlib.ExitStack() as stack:
            root = self._open(directory, account, stack)
            with acting_as(account):
                return unpack_into(pieces, root, overwrite=overwrite)

    def close(self) -> None:
        """Kill what is left of the task (see the port); its directory belongs to the executor."""
        if self._cgroup is not None and self._all_joined:
            self._cgroup.end()
            self._closed(self._marker)
            return
        end_task(self._marker, self._cgroup)
        if self._cgroup is not None:
            self._cgroup.remove()

    # Where things lie

    def _account(self, user: str) -> pwd.struct_passwd | None:
        if user not in self._accounts:
            self._accounts[user] = find_account(user)
        return self._accounts[user]

    def _private(self, kind: str, account: pwd.struct_passwd | None) -> str:
        """Return a user's private directory of a kind, created if missing."""
        path = f"{self._directory}/{kind}-{account.pw_name}" if account else f"{self._directory}/{kind}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)  # noqa: PTH102 - hot
            if account is not None:
                os.chown(path, account.pw_uid, account.pw_gid)
        return path

    def _script(self, command: Command, account: pwd.struct_passwd | None) -> Path:
        path, text = script_file(self._directory, command.exit_file), command.script
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o700)
        except FileExistsError:  # an earlier executor's
            path.unlink()
            descriptor = os.open(path, flags, 0o700)
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123
            data = memoryview((text if text.endswith("\n") else text + "\n").encode(errors="surrogateescape"))
            while data:
                data = data[file.write(data) :]
            if account is not None:
                os.fchown(descriptor, account.pw_uid, account.pw_gid)
        return path

    @staticmethod
    def _own(exit_file: Path, account: pwd.struct_passwd | None) -> None:
        """Give a user the exit file, and no other access to its directory."""
        if account is not None:
            descriptor = open_own(exit_file, os.O_WRONLY | os.O_CREAT)
            os.fchown(descriptor, account.pw_uid, account.pw_gid)
            os.close(descriptor)

    def _read_flags(self) -> int:
        nofollow = 0 if self._isolation is Isolation.NONE else os.O_NOFOLLOW
        return os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | nofollow

    def _open(
        self, path: str, account: pwd.struct_passwd | None, stack: contextlib.ExitStack, *, create: bool = True
    ) -> int:
        """Open a directory of the pod, created if missing; the stack closes it.

        An isolated step owns only its private directory, so nothing else is touched, not even through links.
        """
        with acting_as(account):
            if self._isolation is Isolation.NONE:
                if create:
                    _make_directories(path)
                descriptor = os.open(path, _DIRECTORY)
            else:
                descriptor = open_below(self._directory, path, create=create)
        stack.callback(os.close, descriptor)
        return descriptor

    def _join(self, pid: int) -> None:
        """Add a command's shell to the task's control group, before it begins the command."""
        try:
            if self._cgroup is not None:
                self._cgroup.add(pid)
        except OSError:
            self._all_joined = False

    def _sandbox(
        self, working_dir: str, variables: Mapping[str, str], scripts: Sequence[str], environment: Mapping[str, str]
    ) -> int:
        """Return options that show a step its own files, the machine read-only, and no other task."""
        return open_options(
            sandbox_options(
                hidden=str(self._directory.parent),
                own=[variables["HOME"], variables["TMPDIR"]],
                shown=scripts,
                working_dir=working_dir,
                environment=environment,
                network=self._network,
            )
        )
