"""`agola-core run --watch`: notices that files of a directory change, and runs it again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Self

import click

from agola_cli.runs.interruption import Interruption
from agola_cli.runs.launch.session import Session
from agola_cli.runs.launch.submission import Submission
from agola_core.errors import AgolaError
from agola_core.source.tree import list_tree

_ROUND_SECONDS = 0.5
Snapshot = dict[str, tuple[int, ...]]


class TreeWatcher:
    """Looks at a directory's files now and then, in a thread. A context manager.

    What git ignores is not looked at, as it does not go to the tasks. There is no change while files are still being
    written: two looks in a row must find the same.

    Args:
        tree: The directory.
        others: Files looked at even if git ignores them.
        left_out: Files and directories that are not looked at.
        pause: Seconds between two looks.
    """

    def __init__(
        self, tree: Path, others: Collection[Path], left_out: Collection[Path], pause: float = _ROUND_SECONDS
    ) -> None:
        self._tree = tree
        self._others = others
        self._left_out = [os.path.relpath(path.resolve(), tree.resolve()) for path in left_out]
        self._pause = pause
        self._known: Snapshot = {}
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="watch-files", daemon=True)

    def begin(self) -> None:
        """Count from now on what changes."""
        with self._lock:
            self._known = self._look()
            self._changed.clear()

    @property
    def has_changed(self) -> bool:
        """Whether anything has changed since `begin`."""
        return self._changed.is_set()

    def wait(self, interruption: Interruption) -> None:
        """Wait for a change, or until the user asks to stop."""
        while not interruption.asked and not self._changed.wait(self._pause):
            pass

    def __enter__(self) -> Self:
        """Start."""
        self.begin()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        before: Snapshot = {}
        while not self._closed.wait(self._pause):
            if self._changed.is_set():
                continue
            with self._lock:
                now = self._look()
                if now != self._known and now == before:
                    self._changed.set()
                before = now

    def _look(self) -> Snapshot:
        try:
            names = list_tree(self._tree)
        except AgolaError:  # git is at work; what is wrong for long is said when the tree is packed
            return {}
        paths = {self._tree / name for name in names if not self._is_left_out(name)}
        found: Snapshot = {}
        for path in (*paths, *self._others):
            try:
                status = path.lstat()
            except OSError:
                continue
            found[str(path)] = (status.st_mtime_ns, status.st_size, status.st_mode, status.st_ino)
        return found

    def _is_left_out(self, name: str) -> bool:
        return any(name == other or name.startswith(f"{other}/") for other in self._left_out)


def run_on_changes(session: Session, prepare: Callable[[], Submission], watcher: TreeWatcher) -> int:
    """Run a directory, and again whenever its files have changed, until the user ends it.

    Args:
        session: Runs it.
        prepare: Reads its configuration.
        watcher: Looks at its files.

    Returns:
        The exit code: that of an interrupted command.
    """

    def halt() -> str:
        return "files have changed: stopping the run, to begin again" if watcher.has_changed else ""

    with watcher:
        while True:
            try:
                session.run(session.requests(prepare()), halt)
            except AgolaError as error:
                click.echo(f"agola-core: {error}", err=True)
            if not watcher.has_changed and not session.interruption.asked:
                click.echo("waiting for files to change; Ctrl-C ends it", err=True)
            watcher.wait(session.interruption)
            if session.interruption.asked:
                return session.exit_code([])
            watcher.begin()
