"""The names of processor architectures: tasks and executors use those of Go."""

from __future__ import annotations

_BY_MACHINE = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armv7l": "arm"}


def go_arch(machine: str) -> str:
    """Return an architecture by its Go name; one that is not known, or is one already, as it is.

    Example:
        >>> go_arch("x86_64")
        'amd64'
    """
    return _BY_MACHINE.get(machine, machine)
