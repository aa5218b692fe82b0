"""The run service's keys in the coordinator; nobody else joins them."""

from __future__ import annotations

PREFIX = "rs/"
RUNS = "rs/runs/"
TASKS = "rs/tasks/"
HELD = "rs/held/"
EXECUTORS = "rs/executors/"
ALIVE = "rs/alive/"
SLOTS = "rs/slots/"
EVENTS = "rs/events/"
INSTANCES = "rs/instances/"
GROUPS = "rs/groups/"
GROUPS_FLOOR = "rs/groups-floor"
RELEASES = "rs/releases/"
COUNTER = "rs/counter"
LOCKS = "rs/locks/"
RESET = "rs/reset"
"""Stands while active runs of the state before an import are left; holds the newest run of the imported one."""


def run(run_id: str) -> str:
    """Return the key of an active run; it is written with every change of the run."""
    return f"{RUNS}{run_id}"


def run_parts(run_id: str) -> str:
    """Return the prefix of the parts that hold the tasks of a large run."""
    return f"{RUNS}{run_id}/"


def run_part(run_id: str, number: int) -> str:
    """Return the key of a part of a large run's tasks."""
    return f"{RUNS}{run_id}/{number:04d}"


def task(task_id: str) -> str:
    """Return the key of a task on an executor: made once, so a task starts at most once."""
    return f"{TASKS}{task_id}"


def held_by(executor_id: str) -> str:
    """Return the prefix under which the tasks of an executor are named."""
    return f"{HELD}{executor_id}/"


def held(executor_id: str, task_id: str) -> str:
    """Return the key that says which executor has a task; written and deleted with the task."""
    return f"{HELD}{executor_id}/{task_id}"


def executor(executor_id: str) -> str:
    """Return the key of an executor."""
    return f"{EXECUTORS}{executor_id}"


def alive(executor_id: str) -> str:
    """Return the key that stands under a lease as long as an executor reports itself."""
    return f"{ALIVE}{executor_id}"


def slots(executor_id: str) -> str:
    """Return the key that every start on an executor with a limit writes and compares: no two take one slot."""
    return f"{SLOTS}{executor_id}"


def event(run_id: str, name: str) -> str:
    """Return the key of a run event; its revision is its place among the events."""
    return f"{EVENTS}{run_id}/{name}"


def change_group(name: str) -> str:
    """Return the key of a change group."""
    return f"{GROUPS}{name}"


def releases(run_id: str) -> str:
    """Return the key that names the tasks whose logs and archives a run is to let go of."""
    return f"{RELEASES}{run_id}"


def instance(name: str) -> str:
    """Return the key under which a running service publishes itself, under a lease."""
    return f"{INSTANCES}{name}"


def lock(name: str) -> str:
    """Return the key of a lock among the running services."""
    return f"{LOCKS}{name}"
