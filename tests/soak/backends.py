"""Stores on real servers for the campaigns: an etcd and an S3 server, started once, each store in its own place."""

from __future__ import annotations

import atexit
import random
import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path

from agola_core import Options
from agola_core.coordinator import DeleteOp, open_coordinator
from agola_core.coordinator.port import Coordinator, iterate
from agola_core.objectstorage import ObjectStorage, open_storage
from agola_core.objectstorage.posix.storage import PosixFlatStorage, PosixStorage
from agola_pytest.servers.etcd import EtcdMissingError, EtcdServer, start_etcd
from agola_pytest.servers.s3 import S3MissingError, S3Program, S3Server, missing_reason, start_s3
from tests.soak.processes.kill import MEMORY, OPTIONS, EmbeddedStore
from tests.soak.trial import Skipped, run_child

_PLACES = (
    ("etcd", "posix"),
    ("etcd", "posixflat"),
    ("etcd", "s3"),
    ("etcd", "s3-rclone"),
    ("sqlite", "s3"),
    ("sqlite", "s3-rclone"),
)
_PAGE = 100


class EtcdStore(EmbeddedStore):
    """A store whose coordinator is an etcd.

    Args:
        directory: Where the rest of it lies.
        make_storage: Opens its storage.
        options: The store's.
        hours: More than 0 when each process is to see the leases of those before it ended.
    """

    def __init__(
        self, directory: Path, make_storage: Callable[[Path], ObjectStorage], *, options: Options, hours: int
    ) -> None:
        super().__init__(directory, make_storage, options=options, hours=hours)
        self._url = etcd().url(f"soak/{uuid.uuid4().hex}", timeout=20)

    def _open_coordinator(self, age: int) -> Coordinator:
        coordinator = open_coordinator(self._url)
        if self._hours:
            for prefix in ("dm/locks/", "dm/instances/"):
                _delete(coordinator, prefix)
        return coordinator

    def lose_coordinator(self) -> None:
        """Delete all of its keys."""

        def lose(_: object) -> None:
            with closing(open_coordinator(self._url)) as coordinator:
                _delete(coordinator, "")

        run_child(lose)


def choose(
    rng: random.Random, options: Options = OPTIONS, hours: int = 1
) -> tuple[str, Callable[[Path], EmbeddedStore]]:
    """Return what a store is to lie on, SQLite and a directory apart, and what makes it there.

    Raises:
        Skipped: There is no such server.
    """
    storages: dict[str, Callable[[Path], ObjectStorage]] = {"posix": PosixStorage, "posixflat": PosixFlatStorage}
    coordinator, storage = rng.choice(_PLACES)
    if storage.startswith("s3"):
        program = S3Program.RCLONE if storage == "s3-rclone" else S3Program.MINISTACK
        if missing_reason(program) is not None:
            program, storage = S3Program.MINISTACK, "s3"
        url = s3(program).url(f"soak-{uuid.uuid4().hex}", timeout=20)
        storages[storage] = lambda _: open_storage(url)
    kind = EtcdStore if coordinator == "etcd" else EmbeddedStore
    return (
        f"{coordinator}, {storage}",
        lambda directory: kind(directory, storages[storage], options=options, hours=hours),
    )


@cache
def etcd() -> EtcdServer:
    """Return an etcd that runs until this process ends.

    Raises:
        Skipped: There is none.
    """
    try:
        return _stack().enter_context(start_etcd(_directory(), arguments=["--quota-backend-bytes=2000000000"]))
    except EtcdMissingError as error:
        raise Skipped(str(error)) from error


@cache
def s3(program: S3Program) -> S3Server:
    """Return an S3 server that runs until this process ends.

    Raises:
        Skipped: There is none.
    """
    try:
        return _stack().enter_context(start_s3(_directory(), program))
    except S3MissingError as error:
        raise Skipped(str(error)) from error


@cache
def _stack() -> ExitStack:
    stack = ExitStack()
    atexit.register(stack.close)  # forked children leave by another way
    return stack


def _directory() -> Path:
    return Path(_stack().enter_context(tempfile.TemporaryDirectory(prefix="agola-soak-", dir=MEMORY)))


def _delete(coordinator: Coordinator, prefix: str) -> None:
    found = [item.key for item in iterate(coordinator, prefix)]
    for start in range(0, len(found), _PAGE):
        coordinator.txn([], [DeleteOp(key) for key in found[start : start + _PAGE]])
