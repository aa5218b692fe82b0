"""Isolates host steps with bubblewrap: its options, and a check that it works on this machine.

bubblewrap itself stands outside of the sandbox, so it gets an environment of its own: the step's variables, which
decide about what the dynamic loader loads, are set by it inside. It reads its options from a descriptor, since a
command line can be read by every user of the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from agola_core.errors import ConfigError, UnavailableError
from agola_core.executor.drivers.hostprocess import LAUNCHER, MARKER

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_RUN = "/run"
# The machine's sockets lie below /run; a new one is not reached through a file system that is read-only, an old one is.
_VIEW = ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", _RUN)  # noqa: S108
_CONFINED = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--cap-drop", "ALL", "--die-with-parent"),
)
_STATUS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def find_bubblewrap() -> str:
    """Return where bubblewrap is.

    Raises:
        UnavailableError: It is not on this machine.
    """
    found = shutil.which("bwrap", path=_PATH) or shutil.which("bwrap")
    if found is None:
        raise UnavailableError("isolation needs bubblewrap, which this machine does not have")
    return found


def launcher_environment(marker: str) -> dict[str, str]:
    """Return the environment of what stands outside of the sandbox: nothing in it is a task's but its mark."""
    return {"PATH": _PATH, "LANG": "C", MARKER: marker, LAUNCHER: "1"}


def sandbox_options(
    *,
    hidden: str,
    own: Iterable[str],
    shown: Iterable[str],
    working_dir: str,
    environment: Mapping[str, str],
    network: bool,
) -> list[str]:
    """Return bubblewrap's options for a step.

    Args:
        hidden: A directory of which the step sees nothing.
        own: What it may write.
        shown: What else it may read of the hidden directory.
        working_dir: Where it starts.
        environment: All of its variables.
        network: Whether it shares the machine's network.

    Raises:
        ValueError: Something cannot be an option.
    """
    options = [*_VIEW, *_name_service(), "--tmpfs", hidden]
    options += [word for path in own for word in ("--bind", path, path)]
    options += [word for path in shown for word in ("--ro-bind", path, path)]
    options += [*_CONFINED, *_network(network), "--chdir", working_dir, "--clearenv"]
    options += [word for item in environment.items() for word in ("--setenv", *item)]
    if any("\0" in word for word in options):
        raise ValueError("a variable or a path holds a null byte")
    if any(not name or "=" in name for name in environment):
        raise ValueError("a variable's name is empty or holds a '='")
    return options


def open_options(options: Sequence[str]) -> int:
    """Return a descriptor that bubblewrap reads its options from."""
    descriptor = os.memfd_create("agola-sandbox")
    try:
        data = memoryview(b"".join(os.fsencode(word) + b"\0" for word in options))
        while data:
            data = data[os.write(descriptor, data) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_bubblewrap(*, network: bool = False) -> None:
    """Check that bubblewrap confines here: no capability, and none to be gained.

    Raises:
        ConfigError: It does not; says what it said.
    """
    try:
        done = subprocess.run(
            [find_bubblewrap(), *_VIEW, *_CONFINED, *_network(network), "--", "cat", "/proc/self/status"],
            capture_output=True,
            check=False,
            text=True,
            env=launcher_environment(""),
        )
    except (OSError, UnavailableError) as error:
        raise ConfigError(f"isolation needs bubblewrap, which does not start: {error}") from error
    if done.returncode:
        raise ConfigError(f"bubblewrap does not work on this machine: {done.stderr.strip()}")
    status = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    kept = [name for name in _STATUS if int(status.get(name, "1"), 16)]
    if kept or status.get("NoNewPrivs", "").strip() != "1":
        raise ConfigError(
            f"bubblewrap does not confine on this machine: {', '.join(kept) or 'new privileges'} are kept"
        )


def _network(shared: bool) -> tuple[str, ...]:
    return () if shared else ("--unshare-net",)


def _name_service() -> tuple[str, ...]:
    """Show the resolver's configuration where it lies among what is hidden."""
    path = os.path.realpath("/etc/resolv.conf")
    return ("--ro-bind-try", path, path) if path.startswith(f"{_RUN}/") else ()
