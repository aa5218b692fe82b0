"""A process that writes to a shared store for ever, and notes in a journal what it was told of each write.

`python -m tests.support.writer COORDINATOR STORAGE JOURNAL NAME`
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import agola_core
from agola_core import Options, Put
from agola_core.errors import (
    AgolaError,
    ConflictError,
    FencedError,
    NotFoundError,
    RecoveryError,
    UnavailableError,
    UnknownOutcomeError,
)

GROUPS = 2
_PAUSE_SECONDS = 0.03
"""After each write: what fails comes between writes, and more of them only take processors from what recovers."""
OPTIONS = Options(
    lock_ttl=3,
    sync_interval=0.1,
    checkpoint_wals=30,
    checkpoint_interval=2,
    retain_wals=10,
    retain_manifests=2,
    block_size=500,
    file_size=5000,
    grace_period=0,
)


def main(coordinator: str, storage: str, journal: str, name: str) -> None:
    with Path(journal).open("a", buffering=1) as file:

        def note(**entry: object) -> None:
            file.write(json.dumps({"writer": name, "at": time.time(), **entry}) + "\n")

        number = 0
        while True:
            try:
                with agola_core.open(
                    storage=storage,
                    coordinator=coordinator,
                    data_types=["n"],
                    durability="storage",
                    options=OPTIONS,
                ) as store:
                    note(event="open", epoch=store.sequence.epoch)
                    while True:
                        number += 1
                        write(store, name, number, note)
                        time.sleep(_PAUSE_SECONDS)
            except AgolaError as error:  # another store's history, or nobody there: look again
                note(event="closed", error=f"{type(error).__name__}: {error}")
                time.sleep(0.2)


def write(store: agola_core.DataManager, name: str, number: int, note: Callable[..., None]) -> None:
    group, object_id = f"g{number % GROUPS}", f"{name}-{int(time.time() * 1000)}-{number}"
    counter = f"counter-{group}"
    note(event="begin", id=object_id, group=group)
    try:
        token = store.change_groups_token([group])
        try:
            value, token = store.read_object("n", counter, change_groups=[group])
        except NotFoundError:
            value = b"0"
    except UnavailableError as error:
        note(event="refused", id=object_id, group=group, why=str(error))
        return
    try:
        token = store.write_wal(
            [Put("n", object_id, object_id.encode()), Put("n", counter, b"%d" % (int(value) + 1))], token, timeout=20
        )
    except ConflictError:
        note(event="refused", id=object_id, group=group, why="conflict")
    except UnknownOutcomeError:
        note(event="unknown", id=object_id, group=group)
    except (FencedError, RecoveryError):
        note(event="unknown", id=object_id, group=group)
        raise
    except UnavailableError as error:
        committed = "is committed" in str(error)
        note(event="unknown" if committed else "refused", id=object_id, group=group, why=str(error))
    else:
        note(event="acknowledged", id=object_id, group=group, sequence=token.sequence)


if __name__ == "__main__":
    main(*sys.argv[1:])
