"""The pod of a task on the container driver: a few containers that share a network; commands run in the first.

A command's output and exit code go to files of the executor that are mounted into the container, so it goes on while no
executor watches it. Archives pass through the executor, which checks them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, cast

from agola_core.encoding.numerals import whole_number
from agola_core.errors import BadRequestError, ConfigError, NotFoundError, UnavailableError
from agola_core.executor.archives.pack import Packed
from agola_core.executor.drivers.container import files
from agola_core.executor.drivers.container.engine import Engine, EngineOptions
from agola_core.executor.drivers.container.process import ContainerProcess
from agola_core.executor.drivers.exitfile import BEGUN
from agola_core.executor.drivers.port import Command, Note
from agola_core.executor.files import open_own
from agola_core.runservice.model.types import ArchiveContents

INSIDE = "/mnt/agola"
"""Where the directories of `SHARED` are in the first container."""

SHARED = {"steps": "rw", "lists": "rw", "commands": "ro"}
"""The directories of the executor that the first container sees, with their modes."""

# The shell keeps the engine's pipes and writes nothing to them: they close when it ends, and wake the executor.
# It outlives a polite end, for the command has some time for its own and leaves an exit code.
_WRAPPER = (
    f'trap : TERM INT HUP; l=$1 f=$2 w=$3; shift 3; echo {BEGUN} >>"$f" || exit 125; '
    '{ mkdir -p "$w" && cd "$w"; } 2>>"$l" || { echo 1 >>"$f"; exit 1; }; '
    '"$@" </dev/null >>"$l" 2>&1; c=$?; echo "$c" >>"$f"; exit "$c"'
)
_PIECE = 1 << 16


class ContainerPod:
    """The containers of a task (see `port.Pod`).

    Args:
        options: How the engine is used.
        directory: The task's directory on the executor.
        containers: Their ids, in the task's order.
    """

    def __init__(self, options: EngineOptions, directory: Path, containers: Sequence[str]) -> None:
        self._options = options
        self._directory = directory
        self._containers = containers
        self._main = containers[0]
        self._engine = Engine(options)
        self._users: dict[str, tuple[str, int, int]] = {}
        self._environment: dict[str, str] | None = None

    def variables(self, user: str) -> dict[str, str]:
        """Return a user's environment (see the port)."""
        if self._environment is None:
            self._environment = self._engine.environment(self._main)
        return {**self._environment, "HOME": self._user(user)[0]}

    def start(self, command: Command, note: Note = lambda _: None) -> ContainerProcess:
        """Start a command (see the port)."""
        argv = list(command.argv)
        try:
            for path in (command.output, command.exit_file):
                self._offer(path)
            if command.script:
                path = self._directory / "commands" / command.exit_file.stem
                path.write_text(command.script.removesuffix("\n") + "\n", errors="surrogateescape")
                path.chmod(0o755)
                argv.append(f"{INSIDE}/commands/{command.exit_file.stem}")
        except OSError as error:
            raise UnavailableError(f"the step could not be started: {error}") from error
        paths = [
            f"{INSIDE}/steps/{command.output.name}",
            f"{INSIDE}/steps/{command.exit_file.name}",
            command.working_dir,
        ]
        engine = Engine(self._options)
        exec_id = engine.start_exec(
            self._main, ["/bin/sh", "-c", _WRAPPER, "agola-step", *paths, *argv], command.environment, command.user
        )
        try:
            note({"container": self._main, "exec": exec_id})
            output_ends = engine.follow_exec(exec_id)
        except BaseException as error:
            engine.close()
            if isinstance(error, OSError):
                raise UnavailableError(f"the step could not be started: {error}") from error
            raise
        return ContainerProcess(engine, self._main, exec_id, command.exit_file, output_ends)

    def read(self, path: str, user: str) -> Iterator[bytes]:
        """Yield a file (see the port).

        It comes through a file of the executor: an engine may lose the output of a command that ends at once, and half
        a file would give a wrong cache key.
        """
        _, copy = self._lists()
        script = f'exec cat -- "$1" >>{INSIDE}/lists/found'
        code, _, errors = self._engine.run(self._main, ["/bin/sh", "-c", script, "cat", path], user)
        with os.fdopen(open_own(copy), "rb") as file:
            if code:
                raise NotFoundError(f"cannot read {path!r}: {errors.decode(errors='replace').strip()}")
            while piece := file.read(_PIECE):
                yield piece
        copy.unlink(missing_ok=True)

    def pack(self, target: Path, contents: Iterable[ArchiveContents], working_dir: str, user: str) -> Packed:
        """Archive files of the pod (see the port)."""

        def opened(path: str) -> Iterator[bytes]:
            code, _, _ = self._engine.run(self._main, ["/bin/sh", "-c", 'cd -- "$1"', "cd", path], user)
            if code:
                raise BadRequestError(f"source directory {path!r} does not exist, or may not be read")
            return self._engine.open_tar(self._main, f"{path.rstrip('/')}/.")

        with target.open("wb") as file:
            return files.repack(file.write, contents, working_dir, opened)

    def unpack(self, pieces: Iterable[bytes], directory: str, user: str, *, overwrite: bool) -> int:
        """Unpack an archive into the pod (see the port): it is checked completely before anything is written."""
        _, uid, gid = self._user(user)
        with tempfile.TemporaryFile(dir=self._directory) as file:
            spool = cast("IO[bytes]", file)
            checked = files.check(pieces, spool)
            existing = self._prepare(directory, user, checked)
            skipped = frozenset() if overwrite else existing
            clean = files.clean(spool, uid, gid, skipped)
            self._engine.put_tar(self._main, directory, clean)
        return checked.count

    def close(self) -> None:
        """Remove the containers (see the port)."""
        with closing(self._engine):
            for container in reversed(self._containers):
                self._engine.remove(container)

    def _prepare(self, directory: str, user: str, checked: files.Checked) -> frozenset[str]:
        """Create the directories of an archive, as the user; return which of its files exist."""
        lists, found = self._lists()
        (lists / "directories").write_text("".join(f"{name}\n" for name in checked.directories))
        (lists / "files").write_text("".join(f"{name}\n" for name in checked.files))
        for name in ("directories", "files"):
            (lists / name).chmod(0o644)
        script = (
            'mkdir -p -- "$1" && cd -- "$1" || exit 1; '
            f'while IFS= read -r n; do mkdir -p "./$n" || exit 1; done <{INSIDE}/lists/directories; '
            'while IFS= read -r n; do if [ -e "./$n" ] || [ -L "./$n" ]; then printf "%s\\n" "$n"; fi; '
            f"done <{INSIDE}/lists/files >{INSIDE}/lists/found"
        )
        code, _, errors = self._engine.run(self._main, ["/bin/sh", "-c", script, "prepare", directory], user)
        if code:
            raise BadRequestError(f"cannot unpack into {directory!r}: {errors.decode(errors='replace').strip()}")
        with os.fdopen(open_own(found), errors="surrogateescape") as file:
            return frozenset(line.rstrip("\n") for line in file)

    def _user(self, user: str) -> tuple[str, int, int]:
        """Return a user's home, user id and group id."""
        if user not in self._users:
            _, found = self._lists()  # an engine may lose the output of a command that ends at once
            script = f"{{ echo ~; id -u; id -g; }} >{INSIDE}/lists/found"
            code, out, errors = self._engine.run(self._main, ["/bin/sh", "-c", script], user)
            with os.fdopen(open_own(found), errors="replace") as file:
                lines = file.read().splitlines()
            numbers = [number for line in lines[1:] if (number := whole_number(line)) is not None]
            if code or len(lines) != 3 or len(numbers) != 2:
                said = (errors or out).decode(errors="replace").strip()
                raise ConfigError(f"user {user!r} cannot run commands in the container: {said}")
            self._users[user] = (lines[0] if lines[0].startswith("/") else "/", numbers[0], numbers[1])
        return self._users[user]

    def _lists(self) -> tuple[Path, Path]:
        """Return the directory for lists exchanged with the container, and an empty file for its answer."""
        lists = self._directory / "lists"
        lists.mkdir(0o711, exist_ok=True)
        found = lists / "found"
        found.unlink(missing_ok=True)
        self._offer(found)
        return lists, found

    @staticmethod
    def _offer(path: Path) -> None:
        """Create a file that any user of the container may write, in a directory where none may create others."""
        descriptor = open_own(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.fchmod(descriptor, 0o666)
        os.close(descriptor)
