"""Attacks on a running service and a running executor, in an order by the seed; after each both still serve.

Each attack was once an open door. Its name tells what must happen instead; docs/security.md says more.
"""

from __future__ import annotations

import random
import re
import signal
import socket
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx2

from tests.soak.attacks import by_executors, on_tasks
from tests.soak.attacks.attacked import API, SECONDS, Target, expect
from tests.soak.trial import Campaign, Violation

_READERS = 40


def no_answer_is_taken_for_a_page(target: Target) -> None:
    run_id, _ = target.create("echo '<html><script>1</script>'", name="x\" onload=\"fetch('/')")
    target.finished(run_id)
    badge = target.ask("GET", "/badge.svg")
    if [item for item in ElementTree.fromstring(badge.content).iter() if "onload" in item.attrib]:
        raise Violation("a run's name became an attribute of the badge")
    for base, path in (
        (target.url, "/badge.svg"),
        (target.url, f"{API}/runs"),
        (target.url, "/nothing"),
        (target.executor_url, "/healthz"),
    ):
        headers = target.ask("GET", path, base=base).headers
        if headers.get("x-content-type-options") != "nosniff" or "content-security-policy" not in headers:
            raise Violation(f"{base}{path} may be taken for a page with scripts")


def strangers_are_refused(target: Target) -> None:
    for method, path in (
        ("GET", "/runs"),
        ("POST", "/runs"),
        ("GET", "/export"),
        ("GET", "/executors"),
        ("PUT", "/maintenance"),
    ):
        expect(target.ask(method, API + path, ""), 401)
    for path in ("/executor", "/executor/logs?taskid=x&setup"):
        expect(target.ask("POST" if path == "/executor" else "GET", API + path, "", base=target.executor_url), 401)
    expect(target.ask("GET", f"{API}/executor/{target.executor_id}/tasks", "client"), 403)
    for path in (target.data / "tokens", target.data / "coordinator.db", target.root / "executor/token"):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise Violation(f"{path.name} is open to other users")


def an_executor_speaks_for_itself_alone(target: Target) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        place = f"http://127.0.0.1:{trap.getsockname()[1]}"
        body = {"id": target.executor_id, "listenURL": place, "listen_token": "another-token"}
        expect(target.ask("POST", f"{API}/executor/{target.executor_id}", "executor", json=body), 403)
        expect(target.ask("GET", f"{API}/executor/{target.executor_id}/tasks", "executor"), 403)
        for url in (f"{place}/path", "http://169.254.169.254/", "http://8.8.8.8/"):
            body = {"id": "stray", "listenURL": url}
            if target.ask("POST", f"{API}/executor/stray", "executor", json=body).is_success:
                raise Violation(f"an executor registered {url}")
    if (target.root / "executor/token").read_text() in target.ask("GET", f"{API}/executors").text:
        raise Violation("an executor's token is told")


def a_stopped_executor_keeps_nobody_waiting(target: Target) -> None:
    gate = target.root / f"gate{time.monotonic_ns()}"
    run_id, task_id = target.create(f"echo on; while [ ! -e {gate} ]; do sleep 0.05; done")
    log = f"{API}/logs?runid={run_id}&taskid={task_id}&step=0"
    with httpx2.Client(base_url=target.url, timeout=SECONDS, trust_env=False) as client:
        headers = {"Authorization": f"Bearer {target.tokens['client']}"}
        with client.stream("GET", f"{log}&follow", headers=headers) as answer:
            next(answer.iter_raw())
    target.executor.send_signal(signal.SIGSTOP)
    try:
        request = f"GET {log} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {target.tokens['client']}\r\n\r\n"
        with ExitStack() as readers:
            for _ in range(_READERS):
                readers.enter_context(target.wire(request.encode()))
            for path in ("/healthz", f"{API}/status", f"{API}/runs"):
                began = time.monotonic()
                expect(target.ask("GET", path), 200)
                if time.monotonic() - began > 5:
                    raise Violation(f"{path} waited {time.monotonic() - began:.1f} s behind a stopped executor")
    finally:
        target.executor.send_signal(signal.SIGCONT)
        gate.touch()
    target.finished(run_id)


def slow_strangers_take_no_places(target: Target) -> None:
    with ExitStack() as slow:
        for _ in range(600):  # more than there are places of streams
            slow.enter_context(
                target.wire(b"POST /page/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60\r\n\r\ntoken=")
            )
        expect(target.ask("GET", f"{API}/export", "admin"), 200)


def a_log_without_lines_is_a_short_page(target: Target) -> None:
    run_id, task_id = target.create("head -c 30000000 /dev/zero | tr '\\0' x")
    target.finished(run_id)
    if len(target.ask("GET", f"/page/runs/{run_id}/tasks/{task_id}/log?step=0").content) > 8 << 20:
        raise Violation("the page of a log is larger than 8 MiB")


def long_chains_and_wide_graphs_are_checked_at_once(target: Target) -> None:
    step = {"type": "run", "name": "one", "command": "true"}
    ids = [f"t{number}" for number in range(4000)]
    tasks: dict[str, dict[str, Any]] = {
        name: {"id": name, "name": name, "depends": {}, "steps": [step]} for name in ids
    }
    for name, parent in pairwise(ids):
        tasks[name]["depends"] = {parent: {"task_id": parent}}
    tasks["t0"]["depends"]["none"] = {"task_id": "none"}  # an error, seen when all is looked at
    began = time.monotonic()
    answer = target.ask("POST", f"{API}/runs", json={"name": "r", "group": "/project/g", "run_config_tasks": tasks})
    expect(answer, 201)
    if answer.json()["run"]["phase"] != "setuperror":
        raise Violation("a graph with an error is taken")
    if time.monotonic() - began > 10:
        raise Violation("a chain of 4,000 tasks is not checked in 10 s")


def browsers_keep_no_token_and_serve_no_other_site(target: Target) -> None:
    form = {"token": target.tokens["client"]}
    cookie = target.ask("POST", "/page/login", "", data=form).headers["set-cookie"]
    if target.tokens["client"] in cookie or "HttpOnly" not in cookie:
        raise Violation("a browser's cookie tells the token")
    for path in ("/page/login", "/page/logout"):
        answer = target.ask("POST", path, "", data=form, headers={"Origin": "http://evil.example"})
        if answer.status_code != 403 or "set-cookie" in answer.headers:
            raise Violation(f"another site's page is served by {path}")


def large_and_odd_requests_are_answered(target: Target) -> None:
    expect(target.ask("POST", f"{API}/runs", content=b"x" * (40 << 20)), 413)
    expect(target.ask("POST", f"{API}/sources", content=b""), 400)
    answer = target.ask("TRACE", f"{API}/runs")
    if answer.status_code != 405 or not re.search("GET.*POST", answer.headers.get("allow", "")):
        raise Violation("405 does not say what is allowed")
    expect(target.ask("POST", f"{API}/runs", content=b"[" * 1_000_000), 400)


def cache_keys_do_not_freeze(target: Target) -> None:
    save = {"type": "save_cache", "key": "{{" + " " * 1600, "contents": [{"source_dir": ".", "paths": ["**"]}]}
    run_id, _ = target.create("", steps=[save])
    if target.finished(run_id)["result"] == "success":
        raise Violation("a cache key that is no template was taken")


ATTACKS: tuple[Callable[[Target], None], ...] = (
    no_answer_is_taken_for_a_page,
    strangers_are_refused,
    an_executor_speaks_for_itself_alone,
    a_stopped_executor_keeps_nobody_waiting,
    slow_strangers_take_no_places,
    a_log_without_lines_is_a_short_page,
    long_chains_and_wide_graphs_are_checked_at_once,
    browsers_keep_no_token_and_serve_no_other_site,
    large_and_odd_requests_are_answered,
    cache_keys_do_not_freeze,
    *on_tasks.ATTACKS,
    *by_executors.ATTACKS,
)


def trial(seed: int) -> Counter[str]:
    """Play all attacks once."""
    counts: Counter[str] = Counter()
    order = random.Random(seed).sample(ATTACKS, len(ATTACKS))
    with tempfile.TemporaryDirectory() as directory:
        target = Target(Path(directory))
        try:
            for attack in order:
                attack(target)
                run_id, _ = target.create("true")
                if target.finished(run_id)["result"] != "success":
                    raise Violation(f"after {attack.__name__} no run succeeds")
                counts[attack.__name__.replace("_", " ")] += 1
        except httpx2.HTTPError as error:
            raise Violation(f"the service does not answer: {error!r}") from error
        finally:
            target.close()
    return counts


CAMPAIGN = Campaign("attack", "attacks that found the service and the executor closed", trial)
