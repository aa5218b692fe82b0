"""executors: the share of a core that `serve` takes with 200 executors.

Without tasks, with 10 running on each, and from the creation of the runs to the archiving of the last.

This process plays all of them over HTTP, with the calls of real ones: registration, a heartbeat and a look at their
tasks every two seconds, three reports of each task, and the logs that the service fetches. A run has a task on each
executor. The reference is one core.
"""

from __future__ import annotations

import heapq
import itertools
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from msgspec.structs import replace

from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import (
    Executor,
    ExecutorPhase,
    ExecutorTask,
    ExecutorTaskStepStatus,
    RunConfigTask,
    RunStep,
)
from agola_http.executor.runservice_client import HttpRunserviceClient
from bench.machine import workplace
from bench.processes import agola_core_command, processor_seconds
from bench.result import Line, limit

EXECUTORS = 200
TASKS_EACH = 10
HEARTBEAT_SECONDS = 2.0
TASK_SECONDS = (5.0, 15.0)
ROUND_SECONDS = 4.0
ROUNDS = 5
LIMIT = 1.0
_SETTLE_SECONDS = 3.0
_THREADS = 8
_DONE = ExecutorTaskStepStatus(phase=ExecutorPhase.SUCCESS)
_RUNNING = ExecutorTaskStepStatus(phase=ExecutorPhase.RUNNING)


def run() -> list[Line]:
    with tempfile.TemporaryDirectory(dir=workplace()) as directory:
        serve = agola_core_command(
            "serve", "--no-tokens", "--port", 0, "--no-executor", "--data-dir", Path(directory, "serve")
        )
        with serve as (url, pid), _played(url) as executors:
            time.sleep(_SETTLE_SECONDS)
            idle = [_share(pid, ROUND_SECONDS) for _ in range(ROUNDS)]
            running, whole = _play(url, pid, executors)
    name = f"executors, {EXECUTORS} with {TASKS_EACH} tasks"
    return [
        limit(f"{name}: before them / one core", idle, 1.0, LIMIT, "cores"),
        limit(f"{name}: while they run / one core", running, 1.0, LIMIT, "cores"),
        limit(f"{name}: the whole play / one core", whole, 1.0, LIMIT, "cores"),
    ]


def _share(pid: int, seconds: float) -> float:
    started, before = time.monotonic(), processor_seconds(pid)
    time.sleep(seconds)
    return (processor_seconds(pid) - before) / (time.monotonic() - started)


def _play(url: str, pid: int, executors: Executors) -> tuple[list[float], float]:
    started, before = time.monotonic(), processor_seconds(pid)
    with httpx2.Client(base_url=f"{url}/api/v1alpha", timeout=60) as client:
        runs = []
        for number in range(TASKS_EACH):
            answer = client.post("/runs", content=msgspec.json.encode(_request(number)))
            runs.append(answer.raise_for_status().json()["run"]["id"])
        executors.wait(lambda: executors.reports == 2 * EXECUTORS * TASKS_EACH)
        running = [_share(pid, ROUND_SECONDS) for _ in range(ROUNDS)]
        executors.end_all()
        for run_id in runs:
            while not _is_archived(client, run_id):
                time.sleep(0.5)
    return running, (processor_seconds(pid) - before) / (time.monotonic() - started)


def _is_archived(client: httpx2.Client, run_id: str) -> bool:
    state = client.get(f"/runs/{run_id}").raise_for_status().json()["run"]
    assert state["result"] in {"unknown", "success"}, state["result"]
    return bool(state.get("archived")) and state["phase"] == "finished"


def _request(number: int) -> RunCreateRequest:
    names = [f"task-{number}-{executor}" for executor in range(EXECUTORS)]
    tasks = {name: RunConfigTask(id=name, name=name, steps=[RunStep(command="true")]) for name in names}
    return RunCreateRequest(run_config_tasks=tasks, name=f"r{number}", group=f"/project/p/branch/b{number}")


class Executors:
    """The executors that are played.

    Args:
        url: The service's.
        listen_url: Where all of them are told of tasks.
    """

    def __init__(self, url: str, listen_url: str) -> None:
        self.started: dict[str, ExecutorTask] = {}
        self.reports = 0
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._closed = False
        self._clients: dict[str, HttpRunserviceClient] = {}
        for number in range(EXECUTORS):
            name = f"executor-{number:03}"
            client = self._clients[name] = HttpRunserviceClient(url)
            token = f"{number:03}".rjust(40, "t")
            client.show(token)
            me = Executor(
                id=name, listen_url=listen_url, listen_token=token, archs=["amd64"], active_tasks_limit=TASKS_EACH
            )
            self._heartbeat_at(me, time.monotonic() + HEARTBEAT_SECONDS * number / EXECUTORS)
        self._threads = [threading.Thread(target=self._work) for _ in range(_THREADS)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End all threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for client in self._clients.values():
            client.close()

    def submit(self, task: ExecutorTask) -> None:
        """Take a task; one that is known is not started twice."""
        with self._changed:
            if task.id in self.started:
                return
            self.started[task.id] = task
            self._changed.notify_all()
        begun = replace(task.status, phase=ExecutorPhase.RUNNING, setup_step=_DONE)
        self._report_at(0.0, replace(task, status=begun))
        self._report_at(0.5, replace(task, status=replace(begun, steps=[_RUNNING])))

    def end_all(self) -> None:
        """End all tasks, each in its time."""
        for task in list(self.started.values()):
            ended = replace(task.status, phase=ExecutorPhase.SUCCESS, setup_step=_DONE, steps=[_DONE])
            self._report_at(random.uniform(*TASK_SECONDS), replace(task, status=ended))

    def wait(self, reached: Callable[[], bool]) -> None:
        """Wait for a state."""
        with self._changed:
            assert self._changed.wait_for(reached, 120)

    def _heartbeat_at(self, me: Executor, when: float) -> None:
        def beat() -> None:
            client = self._clients[me.id]
            client.send_executor_status(me)
            for task in client.executor_tasks(me.id):
                if not task.status.phase.is_finished:
                    self.submit(task)
            self._heartbeat_at(me, max(when + HEARTBEAT_SECONDS, time.monotonic()))

        self._at(when, beat)

    def _report_at(self, later: float, task: ExecutorTask) -> None:
        def report() -> None:
            executor = task.status.executor_id
            self._clients[executor].send_task_status(executor, task)
            with self._changed:
                self.reports += 1
                self._changed.notify_all()

        self._at(time.monotonic() + later, report)

    def _at(self, when: float, work: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._due, (when, next(self._numbers), work))
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (not self._due or self._due[0][0] > time.monotonic()):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._closed:
                    return
                _, _, work = heapq.heappop(self._due)
            work()


@contextmanager
def _played(url: str) -> Iterator[Executors]:
    class Handler(BaseHTTPRequestHandler):
        """What an executor answers to its service."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            executors.submit(msgspec.json.decode(body, type=ExecutorTask))
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(b"log\n")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        executors = Executors(url, f"http://127.0.0.1:{server.server_port}")
        try:
            yield executors
        finally:
            executors.close()
            server.shutdown()
