"""What attacks are played on: a service and two executors, one of which isolates its steps."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from tests.soak.trial import Violation

API = "/api/v1alpha"
SECONDS = 60.0
_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # nothing here is asked over TLS; reading the authorities takes 20 ms


class Target:
    """A service with tokens that it made itself, and an executor of the same user.

    Args:
        root: Where they keep what is theirs.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self._environment = {**os.environ, "XDG_STATE_HOME": str(root / "state"), "PYTHONUNBUFFERED": "1"}
        self._started: list[subprocess.Popen[str]] = []
        self._runs = 0
        command = ("serve", "--port", "0", "--no-executor", "--data-dir", str(self.data))
        command = (*command, "--max-fetched-log-bytes", "50000000")
        self.service, line = self._start("serving on", *command)
        self.url = line.split()[-1]
        plain = ("executor", "--url", self.url, "--directory", str(root / "executor"), "--label", "isolated=no")
        self.executor, line = self._start("listens on", *plain)
        self.executor_id, self.executor_url = line.split()[1], line.split()[-1]
        self.isolates = shutil.which("bwrap") is not None
        if self.isolates:
            isolated = ("executor", "--url", self.url, "--directory", str(root / "isolated"), "--label", "isolated=yes")
            self._start("listens on", *isolated, "--isolation", "bubblewrap")
        self.tokens = {
            kind: (self.data / "tokens" / kind).read_text().strip() for kind in ("client", "executor", "admin")
        }

    def _start(self, wanted: str, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "agola_cli.main", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self._environment,
        )
        self._started.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if wanted in line:
                return process, line.strip()
        raise Violation(f"{arguments[0]} did not start")

    def ask(self, method: str, path: str, kind: str = "client", **more: Any) -> httpx2.Response:
        """Return the answer to a request of a kind of caller; "" for a stranger."""
        headers = {**more.pop("headers", {}), **({"Authorization": f"Bearer {self.tokens[kind]}"} if kind else {})}
        base = more.pop("base", self.url)
        with httpx2.Client(base_url=base, timeout=SECONDS, trust_env=False, verify=_NOBODY) as client:
            return client.request(method, path, headers=headers, **more)

    def create(self, command: str, name: str = "attack", **fields: Any) -> tuple[str, str]:
        """Make a run of one task, and return its id and the task's."""
        self._runs += 1
        task_id = f"task{self._runs}"
        steps = fields.pop("steps", [{"type": "run", "name": "one", "command": command}])
        labels = fields.pop("labels", {"isolated": "no"})
        environment = fields.pop("task_environment", {})
        task = {"id": task_id, "name": "only", "depends": {}, "steps": steps, "runtime": {"type": "pod"}}
        task |= {"labels": labels, "environment": environment}
        body = {"name": name, "group": f"/project/p{self._runs}", "run_config_tasks": {task_id: task}, **fields}
        answer = self.ask("POST", f"{API}/runs", json=body)
        expect(answer, 201)
        return answer.json()["run"]["id"], task_id

    def finished(self, run_id: str) -> dict[str, Any]:
        """Return a run when it has ended."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            run: dict[str, Any] = self.ask("GET", f"{API}/runs/{run_id}").json()["run"]
            if run["phase"] in {"finished", "setuperror", "cancelled"}:
                return run
            time.sleep(0.05)
        raise Violation(f"run {run_id} does not end")

    @contextmanager
    def wire(self, data: bytes) -> Iterator[socket.socket]:
        """Open a connection on which something was sent."""
        parts = urlsplit(self.url)
        with socket.create_connection((parts.hostname, parts.port or 80), timeout=SECONDS) as connection:
            connection.sendall(data)
            yield connection

    def close(self) -> None:
        """End both."""
        for process in reversed(self._started):
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(SECONDS)
            assert process.stdout is not None
            process.stdout.close()


def expect(answer: httpx2.Response, status: int) -> None:
    """Raise `Violation` unless an answer has a status."""
    if answer.status_code != status:
        asked = answer.request
        raise Violation(f"{asked.method} {asked.url.path}: {answer.status_code}, not {status}: {answer.text[:200]}")
