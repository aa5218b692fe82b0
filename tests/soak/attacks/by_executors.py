"""Attacks by an executor that has registered rightly: its answers hang, drip, never end, or grow when unpacked."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agola_http.protocol.names import EXECUTOR_HEADER
from tests.soak.attacks.attacked import API, SECONDS, Target, expect
from tests.soak.trial import Violation

_OK = b"HTTP/1.1 200 OK\r\n"
_LABELS = {"played": "yes"}
_TOKEN = "a-token-of-the-played-one"
_MOST_BYTES = 300 << 20
_AT_ONCE = 5.0
_LOOKS = 15
_LOOK_SECONDS = 0.1


def _bomb() -> bytes:
    """Return a gigabyte of zeros, packed; blocks that are flushed whole can be repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first, block = (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + block * 1023 + packer.flush()


class Played:
    """An executor that takes tasks, and answers what is asked of it otherwise with some bytes, or without end."""

    def __init__(self, target: Target, name: str, answer: Callable[[], Iterator[bytes]]) -> None:
        self.name = name
        self.tasks: list[dict[str, Any]] = []
        self.taken = threading.Event()
        self.asked = threading.Event()
        self.sent_bytes = 0
        self._answer = answer
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()
        body = {
            "id": name,
            "listenURL": f"http://127.0.0.1:{self._listener.getsockname()[1]}",
            "listen_token": _TOKEN,
            "archs": ["amd64"],
            "labels": {**_LABELS, "name": name},
        }
        expect(target.ask("POST", f"{API}/executor/{name}", "executor", json=body), 200)

    def close(self) -> None:
        self._ended.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            head, _, body = request.partition(b"\r\n\r\n")
            if head.startswith(b"POST"):
                size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                while len(body) < size:
                    body += connection.recv(65536)
                self.tasks.append(json.loads(body))
                connection.sendall(_OK + b"Content-Length: 0\r\n\r\n")
                self.taken.set()
                return
            self.asked.set()
            for piece in self._answer():
                if self._ended.is_set():
                    return
                connection.sendall(piece)
                self.sent_bytes += len(piece)
            self._ended.wait()


def _dripping() -> Iterator[bytes]:
    yield _OK + b"Transfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"1\r\nx\r\n"
        time.sleep(0.2)


def _endless() -> Iterator[bytes]:
    yield _OK + b"Transfer-Encoding: chunked\r\n\r\n"
    piece = b"%x\r\n%s\r\n" % (1 << 16, b"x" * (1 << 16))
    while True:
        yield piece


def _packed() -> Iterator[bytes]:
    bomb = _bomb()
    yield _OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb


def _silent() -> Iterator[bytes]:
    yield from ()


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def no_answer_of_an_executor_takes_the_service(target: Target) -> None:
    for number, answer in enumerate((_silent, _dripping, _packed, _endless)):
        played = Played(target, f"played{number}-{time.monotonic_ns()}", answer)
        try:
            _play(target, played)
        finally:
            played.close()
            expect(target.ask("DELETE", f"{API}/executors/{played.name}", "admin"), 200)


def _play(target: Target, played: Played) -> None:
    run_id, task_id = target.create("true", labels={**_LABELS, "name": played.name})
    if not played.taken.wait(SECONDS):
        raise Violation("an executor that registered rightly got no task")
    task = played.tasks[-1]
    done = {"phase": "success"}
    task["status"] |= {"phase": "success", "setup_step": done, "steps": [done for _ in task["steps"]]}
    path = f"{API}/executor/{played.name}/tasks/{task_id}"
    expect(target.ask("POST", path, "executor", json=task, headers={EXECUTOR_HEADER: _TOKEN}), 200)
    if not played.asked.wait(SECONDS):
        raise Violation("the log of a task that has ended was not asked for")
    for _ in range(_LOOKS):
        began = time.monotonic()
        for path in ("/healthz", f"{API}/runs/{run_id}"):
            expect(target.ask("GET", path), 200)
        if time.monotonic() - began > _AT_ONCE:
            raise Violation("the service waits behind an executor's answer")
        if _resident(target.service.pid) > _MOST_BYTES:
            raise Violation("an executor's answer fills the service's memory")
        if played.sent_bytes > 2 * _MOST_BYTES:  # taken, and not kept
            break
        time.sleep(_LOOK_SECONDS)


ATTACKS: tuple[Callable[[Target], None], ...] = (no_answer_of_an_executor_takes_the_service,)
