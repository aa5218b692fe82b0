"""A real service and a real executor, each a process of its own, over HTTP."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest

API = "/api/v1alpha"


class Process:
    """A command of agola-core that is started, and said what it listens on."""

    def __init__(self, arguments, fault=""):
        environment = {**os.environ, "AGOLA_FAULTPOINT": fault} if fault else os.environ
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "agola_cli.main", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.line = self.popen.stdout.readline()

    @property
    def alive(self):
        return self.popen.poll() is None

    def kill(self):
        self.popen.send_signal(signal.SIGKILL)
        return self.end()

    def stop(self, number=signal.SIGTERM):
        if self.alive:
            self.popen.send_signal(number)
        return self.end()

    def end(self):
        errors = self.popen.communicate(timeout=60)[1]
        return self.popen.returncode, errors


class Installation:
    """A service and an executor that can be killed and started again, on the same directories and port."""

    def __init__(self, root):
        self.root = root
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx2.Client(base_url=self.url, timeout=30, trust_env=False)
        self.started = []
        self.service = None
        self.executor = None

    def start(self, arguments, fault):
        process = Process(arguments, fault)
        self.started.append(process)
        return process

    def start_service(self, *options, fault=""):
        arguments = ("serve", "--no-tokens", "--port", self.port, "--data-dir", self.root / "service", "--no-executor")
        self.service = self.start([*arguments, *options], fault)
        return self.service

    def start_executor(self, *options, fault=""):
        arguments = ("executor", "--url", self.url, "--directory", self.root / "executor")
        self.executor = self.start([*arguments, *options], fault)
        if not fault and self.executor.line:
            httpx2.get(f"{self.executor.line.split()[-1]}/healthz", timeout=30, trust_env=False)
        return self.executor

    def create(self, *tasks, group="/project/p1", **fields):
        body = {"name": "r", "group": group, "run_config_tasks": {task["id"]: task for task in tasks}, **fields}
        answer = self.client.post(f"{API}/runs", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["run"]["id"]

    def run(self, run_id):
        return self.client.get(f"{API}/runs/{run_id}").json()["run"]

    def finished(self, run_id, seconds=60):
        """Return a run when it is finished; a service that is away is asked again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                run = self.run(run_id)
            except (httpx2.HTTPError, json.JSONDecodeError, KeyError):
                run = {}
            if run.get("phase") in {"finished", "cancelled"}:
                return run
            time.sleep(0.05)
        raise AssertionError(f"the run did not finish: {run}")

    def log(self, run_id, task_id, step=0):
        return self.client.get(f"{API}/logs", params={"runid": run_id, "taskid": task_id, "step": step}).text

    def close(self):
        self.client.close()
        for process in reversed(self.started):
            if not process.popen.stdout.closed:
                process.stop()


def task(task_id, *steps, depends=(), **fields):
    """Return a task whose steps are commands, or steps as they are sent."""
    made = [{"type": "run", "name": "step", "command": step} if isinstance(step, str) else step for step in steps]
    wanted = {above: {"task_id": above, "conditions": ["on_success"]} for above in depends}
    return {"id": task_id, "name": task_id, "depends": wanted, "steps": made, **fields}


_PORTS = itertools.count(10_000 + os.getpid() * 37 % 20_000)


def free_port():
    """Return a port that stays free while a service is away: the kernel gives it to no connection and no other test,
    for it is below those that it gives."""
    for port in _PORTS:
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable")


@pytest.fixture
def installation(tmp_path):
    found = Installation(tmp_path)
    yield found
    found.close()


@pytest.fixture
def running(installation):
    installation.start_service()
    installation.start_executor("--stop-tasks")
    return installation


@pytest.fixture
def make_task():
    return task
