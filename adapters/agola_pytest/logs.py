"""Logs of servers, shown with the report of a test that fails."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest

_LINES = 100
_LOGS = pytest.StashKey[list[Path]]()


def attach_log(node: pytest.Item, file: Path) -> None:
    """Show the end of a file when a test fails.

    Args:
        node: The test.
        file: Need not exist yet.
    """
    node.stash.setdefault(_LOGS, []).append(file)


def add_sections(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add the attached logs to a report, when it is one of a failure."""
    if not report.failed:
        return
    for file in item.stash.get(_LOGS, []):
        if file.is_file():
            with file.open(errors="replace") as lines:
                report.sections.append((f"log {file.name}", "".join(deque(lines, _LINES))))
