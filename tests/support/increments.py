"""A process that adds 1 to a shared counter many times, and adds again whenever it was refused.

`python -m tests.support.increments COORDINATOR STORAGE TIMES [CHANGE_GROUP]`
"""

import sys

import agola_core
from agola_core import ConflictError, Put


def main(coordinator: str, storage: str, times: str, group: str = "") -> None:
    with agola_core.open(storage=storage, coordinator=coordinator, data_types=["n"]) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(int(times)):
            while not _added(store, group):
                pass


def _added(store: agola_core.DataManager, group: str) -> bool:
    store.refresh()
    token = store.change_groups_token([group]) if group else None
    entry = store.entry("n", "counter")
    try:
        if entry is None:
            store.write_wal([Put("n", "counter", b"1", if_absent=True)], token)
        else:
            store.write_wal([Put("n", "counter", b"%d" % (int(entry.data) + 1), expected=entry.version)], token)
    except ConflictError:
        return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
