"""Crashes at named fault points: runs a function in a process that is killed on the way.

def write(directory: str) -> None:
    with agola_core.open(directory, data_types=["object"]) as store:
        store.write_wal([Put("object", "a", b"1")])

def test_recovery(agola_crash, tmp_path):
    assert agola_crash("commit.after-txn", write, str(tmp_path)).crashed
    with agola_core.open(tmp_path, data_types=["object"]) as store:
        assert store.read_object("object", "a")[0] == b"1"
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import pickle
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import agola_core
from agola_core.errors import BadRequestError
from agola_core.runtime import faultpoints


class Crash(NamedTuple):
    """Outcome of the process.

    Attributes:
        crashed: Whether it was killed at the point.
        exit_code: Its exit code; -N when signal N ended it.
        output: Its output, including standard error.
    """

    crashed: bool
    exit_code: int
    output: str


def crash_at(
    point: str, function: Callable[..., object], *arguments: object, hit: int = 1, timeout: float = 60
) -> Crash:
    """Run a function in a separate process that is killed, as by `kill -9`, when it passes a fault point.

    Args:
        point: One of `fault_points()`.
        function: A function at the top level of a module.
        arguments: Its arguments; they must be picklable.
        hit: The pass of the point that kills it, from 1.
        timeout: Seconds after which it is killed in any case.

    Returns:
        The outcome: not crashed if it ended without passing the point that often.

    Raises:
        BadRequestError: There is no such point, or the function cannot be found by another process.
        AssertionError: The function raised an error instead of being killed.
    """
    known = fault_points()
    if point not in known:
        near = difflib.get_close_matches(point, known, n=3)
        raise BadRequestError(f"no fault point {point!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
    file = inspect.getsourcefile(function) if inspect.isfunction(function) else None
    if file is None or "." in function.__qualname__:
        raise BadRequestError(f"{function!r} must be a function at the top level of a module")
    done = subprocess.run(
        [sys.executable, "-m", "agola_pytest.faults.crash", file, function.__module__, function.__qualname__],
        input=pickle.dumps((list(sys.path), arguments)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, faultpoints.VARIABLE: f"{point}:{hit}:kill"},
        timeout=timeout,
        check=False,
    )
    output = done.stdout.decode(errors="replace")
    if done.returncode not in {0, -signal.SIGKILL}:
        raise AssertionError(f"{function.__name__} did not reach {point}:\n{output}")
    return Crash(done.returncode == -signal.SIGKILL, done.returncode, output)


def fault_points() -> list[str]:
    """Return the names of all fault points of agola_core, sorted."""
    for module in pkgutil.walk_packages(agola_core.__path__, "agola_core."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError:  # of an extra that is not installed
            continue
    return sorted(faultpoints.declared())


def _main() -> None:
    path, arguments = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - from our own parent
    sys.path[:] = path
    file, module_name, name = sys.argv[1:]
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., object] = getattr(module, name)
    function(*arguments)


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    _main()
