"""Attacks by tasks, and on what belongs to other tasks: their sandbox, caches, sources and secrets."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from agola_core.errors import BadRequestError
from agola_core.source.tree import pack_tree
from tests.soak.attacks.attacked import API, Target, expect
from tests.soak.trial import Violation

_ISOLATED = {"isolated": "yes"}
_MARKS = ("/usr/agola-was-here", "/etc/agola-was-here")


def log_of(target: Target, run_id: str, task_id: str, step: int = 0) -> str:
    """Return a step's log."""
    answer = target.ask("GET", f"{API}/logs?runid={run_id}&taskid={task_id}&step={step}")
    expect(answer, 200)
    return answer.text


def no_variable_leaves_a_sandbox(target: Target) -> None:
    compiler = shutil.which("cc")
    if not target.isolates or compiler is None:
        return
    out, place = target.root / "outside", target.root / "attack"
    place.mkdir(exist_ok=True)
    source, library, shell = place / "attack.c", place / "attack.so", place / "rc"
    source.write_text(
        f'''#include <fcntl.h>
        __attribute__((constructor)) static void attack(void) {{ open("{out}", O_CREAT | O_WRONLY, 0600); }}'''
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    shell.write_text(f"echo x >{out}\n")
    hostile = {
        "LD_PRELOAD": str(library),
        "LD_AUDIT": str(library),
        "LD_LIBRARY_PATH": str(place),
        "GCONV_PATH": str(place),
        "BASH_ENV": str(shell),
        "ENV": str(shell),
    }
    run_id, _ = target.create("true", labels=_ISOLATED, task_environment=hostile)
    target.finished(run_id)
    if out.exists():
        raise Violation("a task's variables brought its code out of the sandbox")


def no_sandbox_is_remounted(target: Target) -> None:
    if not target.isolates:
        return
    tries = ["mount -o remount,rw,bind /", "umount -l /run", f"umount -l {target.root}"]
    tries += [f"touch {mark}" for mark in (*_MARKS, target.root / "agola-was-here")]
    run_id, task_id = target.create(
        "set +e; " + "; ".join(tries) + f"; ls {target.root}/isolated/tasks; grep Cap /proc/self/status",
        labels=_ISOLATED,
    )
    target.finished(run_id)
    if any(Path(mark).exists() for mark in (*_MARKS, target.root / "agola-was-here")):
        raise Violation("an isolated step has written outside of its sandbox")
    rights = [line.split()[1] for line in log_of(target, run_id, task_id).splitlines() if line.startswith("Cap")]
    if not rights or any(int(right, 16) for right in rights):
        raise Violation(f"an isolated step has capabilities: {rights}")


def no_isolated_step_reaches_the_service(target: Target) -> None:
    if not target.isolates:
        return
    host, _, port = target.url.removeprefix("http://").partition(":")
    ask = f'import socket; socket.create_connection(("{host}", {port}), 5)'
    run_id, _ = target.create(f"! python3 -c '{ask}'", labels=_ISOLATED)
    if target.finished(run_id)["result"] != "success":
        raise Violation("an isolated step reached the service")


def no_group_finds_another_s_cache(target: Target) -> None:
    save = {"type": "save_cache", "key": "prod-deps", "contents": [{"source_dir": ".", "paths": ["**"]}]}
    restore = {"type": "restore_cache", "keys": ["deps"], "dest_dir": "."}
    planted = [{"type": "run", "name": "plant", "command": "echo planted > planted"}, save]
    run_id, _ = target.create("", steps=planted, cache_group="acme")
    target.finished(run_id)
    look = [restore, {"type": "run", "name": "look", "command": "test ! -e planted"}]
    run_id, _ = target.create("", steps=look, cache_group="acme-prod")
    if target.finished(run_id)["result"] != "success":
        raise Violation("a cache of group acme was unpacked in group acme-prod")


def no_ignored_file_is_packed(target: Target) -> None:
    tree = target.root / "tree"
    if not tree.exists():
        tree.mkdir()
        subprocess.run(["git", "-C", tree, "init", "-q"], check=True)
        (tree / ".gitignore").write_text("secret\n")
        (tree / "secret").write_text("x")
        (tree / ".git/HEAD").unlink()
    try:
        b"".join(pack_tree(tree))
    except BadRequestError:
        return
    raise Violation("a checkout that git does not answer for was packed")


def no_secret_is_shown(target: Target) -> None:
    secret = "correct horse battery"
    run_id, task_id = target.create(
        'echo "it is $PASS"; printf "user:$PASS" | base64; echo "$PASS" | cut -c1-7; sleep 0.1; echo "$PASS"',
        task_environment={"PASS": secret},
        secrets=[secret],
    )
    target.finished(run_id)
    seen = [
        log_of(target, run_id, task_id),
        target.ask("GET", f"{API}/logs?runid={run_id}&taskid={task_id}&step=0&follow").text,
        target.ask("GET", f"{API}/runs/{run_id}").text,
        target.ask("GET", f"/page/runs/{run_id}").text,
        target.ask("GET", f"{API}/export?include=logs", "admin").text,
        target.ask("GET", f"{API}/status").text,
    ]
    encoded = base64.b64encode(f"user:{secret}".encode()).decode()
    for text in seen:
        if secret in text or encoded in text or base64.b64encode(secret.encode()).decode() in text:
            raise Violation("a secret is shown")


ATTACKS: tuple[Callable[[Target], None], ...] = (
    no_variable_leaves_a_sandbox,
    no_sandbox_is_remounted,
    no_isolated_step_reaches_the_service,
    no_group_finds_another_s_cache,
    no_ignored_file_is_packed,
    no_secret_is_shown,
)
