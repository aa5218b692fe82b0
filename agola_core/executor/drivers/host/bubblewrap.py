"""Isolates host steps with bubblewrap: its options, and a check that it works on this machine.

bubblewrap itself stands outside of the sandbox, so it gets an environment of its own: the step's variables, which
decide about what the dynamic loader loads, are set by it inside. It reads its options from a descriptor, since a
command line can be read by every user of the machine.
"""

from __future__ import annotations

import enum
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from agola_core.errors import ConfigError, UnavailableError
from agola_core.executor.drivers.host.process import LAUNCHER
from agola_core.executor.drivers.host.process_table import MARKER

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_RUN = "/run"
# The machine's sockets lie below /run; a new one is not reached through a file system that is read-only, an old one is.
_VIEW = ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", _RUN)  # noqa: S108
_CONFINED = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--cap-drop", "ALL", "--die-with-parent"),
)
_STATUS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


class Isolation(enum.StrEnum):
    """How steps are kept apart from the rest of the machine."""

    NONE = "none"
    BUBBLEWRAP = "bubblewrap"


def find_bubblewrap() -> str:
    """Return the path of bubblewrap.

    Raises:
        UnavailableError: It is not installed.
    """
    found = shutil.which("bwrap", path=_PATH) or shutil.which("bwrap")
    if found is None:
        raise UnavailableError("isolation needs bubblewrap, which this machine does not have")
    return found


def launcher_environment(marker: str) -> dict[str, str]:
    """Return the environment of the sandbox's launcher: only the marker in it comes from the task."""
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
        hidden: A directory hidden from the step.
        own: Paths that it may write.
        shown: Other paths in the hidden directory that it may read.
        working_dir: Its working directory.
        environment: All of its variables.
        network: Whether it shares the machine's network.

    Raises:
        ValueError: A value cannot be an option.
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
    """Return a descriptor from which bubblewrap reads its options."""
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
    """Check that bubblewrap works here: a step has no capability, and can gain none.

    Raises:
        ConfigError: It does not; the message has bubblewrap's own.
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
    """Return options that show the resolver's configuration if it is in a hidden directory."""
    path = os.path.realpath("/etc/resolv.conf")
    return ("--ro-bind-try", path, path) if path.startswith(f"{_RUN}/") else ()
