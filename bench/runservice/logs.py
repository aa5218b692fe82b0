"""Logs: the log of a running step, followed over HTTP, beside `cat` through a pipe to curl."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bench.processes import agola_core_command
from bench.result import Line, limit, ratio

SIZE = 100 * 1024 * 1024
ROUNDS = 5
API = "/api/v1alpha"


def run() -> list[Line]:
    with tempfile.TemporaryDirectory(prefix="agola-bench-") as name:
        directory = Path(name)
        content = directory / "content"
        content.write_bytes((os.urandom(48).hex() + "\n").encode() * (SIZE // 97 + 1))
        size = SIZE / 1e6
        ours, firsts, references = [], [], []
        with agola_core_command("serve", "--no-tokens", "--port", "0", "--data-dir", directory / "data") as (url, _):
            for number in range(ROUNDS):
                seconds, first = _follow(url, content, directory / f"gate-{number}", number)
                ours.append(size / seconds)
                firsts.append(first * 1000)
                references.append(size / _cat(content))
    return [
        ratio("logs / cat through a pipe to curl", ours, references, 0.5, "MB/s"),
        limit("logs first byte / round trip", firsts, _round_trip(), 50, "ms"),
    ]


def _follow(url: str, content: Path, gate: Path, number: int) -> tuple[float, float]:
    """Return the seconds that the log took, and those to its first byte."""
    task_id = f"t{number}"
    command = f"echo begun; while [ ! -e {gate} ]; do sleep 0.01; done; cat {content}"
    steps = [{"type": "run", "name": "one", "command": command}]
    task = {"id": task_id, "name": "only", "depends": {}, "steps": steps}
    body = {"name": "r", "group": "/project/bench", "run_config_tasks": {task_id: task}}
    request = urllib.request.Request(f"{url}{API}/runs", json.dumps(body).encode())
    with urllib.request.urlopen(request) as answer:
        run_id = json.load(answer)["run"]["id"]
    path = f"{API}/logs?runid={run_id}&taskid={task_id}&step=0"
    with _get(url, f"{path}&follow") as (sock, _):
        _ = sock.recv(64)  # now the step runs, and has written
        with _get(url, f"{path}&follow") as (second, asked):
            second.recv(64)
            first = time.perf_counter() - asked
            _drain_head(second)
            buffer = bytearray(1 << 20)
            begun, size = time.perf_counter(), 0
            gate.touch()
            while taken := second.recv_into(buffer):
                size += taken
            seconds = time.perf_counter() - begun
    assert size > SIZE, size
    return seconds, first


@contextmanager
def _get(url: str, path: str) -> Iterator[tuple[socket.socket, float]]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port or 80)) as sock:
        asked = time.perf_counter()
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        yield sock, asked


def _drain_head(sock: socket.socket) -> None:
    sock.settimeout(0.2)
    try:
        while sock.recv(1 << 16):
            pass
    except TimeoutError:
        sock.settimeout(None)


def _cat(content: Path) -> float:
    begun = time.perf_counter()
    subprocess.run(f"cat {content} | curl -s -o /dev/null file:///dev/stdin", shell=True, check=True)
    return time.perf_counter() - begun


def _round_trip() -> float:
    """Return the milliseconds of a round trip over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as one:
        two, _ = listener.accept()
        with two:
            begun = time.perf_counter()
            for _ in range(100):
                one.sendall(b"x")
                two.recv(1)
                two.sendall(b"x")
                one.recv(1)
            return (time.perf_counter() - begun) * 10
