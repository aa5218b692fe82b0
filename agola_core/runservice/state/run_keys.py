"""Coordinator keys of the run service; no other module builds them."""

from __future__ import annotations


class Prefix(str):
    """The part that the keys of one kind of record have in common."""

    __slots__ = ()

    def key(self, name: str) -> str:
        """Return the key of a record."""
        return self + name

    def name(self, key: str) -> str:
        """Return what a record's key has after the prefix."""
        return key[len(self) :]


PREFIX = "rs/"
RUNS = Prefix("rs/runs/")
"""Active runs by id; written with every change of the run. Large runs have their tasks in `run_part` keys below."""
TASKS = Prefix("rs/tasks/")
"""Tasks on executors by id; created once, so a task starts at most once."""
HELD = Prefix("rs/held/")
EXECUTORS = Prefix("rs/executors/")
ALIVE = Prefix("rs/alive/")
"""Exists, under a lease, while the executor of that id sends heartbeats."""
SLOTS = Prefix("rs/slots/")
"""Compared and written by every start on an executor with a task limit, so that no two starts take one slot."""
EVENTS = Prefix("rs/events/")
INSTANCES = Prefix("rs/instances/")
"""Running services by name, under a lease."""
GROUPS = Prefix("rs/groups/")
GROUPS_FLOOR = "rs/groups-floor"
RELEASES = Prefix("rs/releases/")
"""By run: the tasks whose logs and archives it is about to stop referring to."""
COUNTER = "rs/counter"
LOCKS = Prefix("rs/locks/")
RESET = "rs/reset"
"""Exists while active runs of the state before an import remain; holds the newest run id of the imported state."""


def run_parts(run_id: str) -> str:
    """Return the prefix of the parts that hold the tasks of a large run."""
    return f"{RUNS}{run_id}/"


def run_part(run_id: str, number: int) -> str:
    """Return the key of one part of a large run's tasks."""
    return f"{RUNS}{run_id}/{number:04d}"


def held_by(executor_id: str) -> Prefix:
    """Return the prefix of the keys that name the tasks of an executor."""
    return Prefix(f"{HELD}{executor_id}/")


def event(run_id: str, name: str) -> str:
    """Return the key of a run event; its revision gives its place among all events."""
    return f"{EVENTS}{run_id}/{name}"
