"""The run service's keys in the coordinator; nobody else joins them."""

from __future__ import annotations

PREFIX = "rs/"
RUNS = "rs/runs/"
TASKS = "rs/tasks/"
EXECUTORS = "rs/executors/"
EVENTS = "rs/events/"
INSTANCES = "rs/instances/"
COUNTER = "rs/counter"


def run(run_id: str) -> str:
    """Return the key of an active run."""
    return f"{RUNS}{run_id}"


def tasks(run_id: str) -> str:
    """Return the prefix of a run's tasks on executors."""
    return f"{TASKS}{run_id}/"


def task(run_id: str, task_id: str) -> str:
    """Return the key of a task on an executor: made once, so a task starts at most once."""
    return f"{TASKS}{run_id}/{task_id}"


def executor(executor_id: str) -> str:
    """Return the key of an executor."""
    return f"{EXECUTORS}{executor_id}"


def event(sequence: str) -> str:
    """Return the key of a run event."""
    return f"{EVENTS}{sequence}"


def instance(name: str) -> str:
    """Return the key under which a running service publishes itself, under a lease."""
    return f"{INSTANCES}{name}"
