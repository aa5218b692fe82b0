"""What is left of a test that failed: the ends of its servers' logs in the report, its directories where asked for."""

from __future__ import annotations

import re
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from agola_pytest.options import value

_FAILED = pytest.StashKey[bool]()
_KEPT = pytest.StashKey[Path]()
_LOGS = pytest.StashKey[list[Path]]()
_SESSION_LOGS = pytest.StashKey[dict[str, list[Path]]]()
_LONGEST_NAME = 150


def attach_log(request: pytest.FixtureRequest, file: Path) -> None:
    """Show the end of a log when a test fails that uses the requesting fixture.

    Args:
        request: The fixture's, of a test's scope or of the session's.
        file: Need not exist yet.
    """
    if request.scope == "session":
        logs = request.session.stash.setdefault(_SESSION_LOGS, {})
        logs.setdefault(str(request.fixturename), []).append(file)
    else:
        request.node.stash.setdefault(_LOGS, []).append(file)


def note_failure(item: pytest.Item, report: pytest.TestReport) -> None:
    """Remember a failure, and add the logs of the servers that the test used to its report."""
    if not report.failed:
        return
    item.stash[_FAILED] = True
    used = set(getattr(item, "fixturenames", ()))
    logs: list[Path] = [*item.stash.get(_LOGS, [])]
    for fixture, files in item.session.stash.get(_SESSION_LOGS, {}).items():
        logs += files if fixture in used else []
    most = int(value(item.config, "log-lines"))
    for file in logs if most else ():
        if file.is_file():
            with file.open(errors="replace") as lines:
                report.sections.append((f"log {file.name}", "".join(deque(lines, most))))
    if (kept := item.stash.get(_KEPT, None)) is not None:
        report.sections.append(("directory", f"kept in {kept}\n"))


@pytest.fixture
def agola_directory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Yield the test's `tmp_path`, which is copied below `--agola-keep` when the test has failed."""
    destination = _destination(request.config, request.node.nodeid)
    if destination is not None:
        request.node.stash[_KEPT] = destination
    yield tmp_path
    if destination is not None and request.node.stash.get(_FAILED, False):
        _copy(tmp_path, destination)


@pytest.fixture(scope="session")
def agola_session_directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the session's directory, which is copied below `--agola-keep` when a test has failed."""
    directory = tmp_path_factory.mktemp("agola")
    yield directory
    worker = getattr(request.config, "workerinput", {}).get("workerid", "main")
    destination = _destination(request.config, f"session-{worker}")
    if destination is not None and request.session.testsfailed:
        _copy(directory, destination)


def _destination(config: pytest.Config, name: str) -> Path | None:
    keep = value(config, "keep")
    if not keep:
        return None
    return config.invocation_params.dir / keep / re.sub(r"[^\w.-]+", "-", name)[-_LONGEST_NAME:].strip("-")


def _copy(directory: Path, destination: Path) -> None:
    shutil.rmtree(destination, ignore_errors=True)  # of an earlier session
    shutil.copytree(directory, destination, symlinks=True, ignore=_no_files)


def _no_files(directory: str, names: list[str]) -> list[str]:
    """Return the sockets and pipes among names, which cannot be copied."""
    paths = {name: Path(directory, name) for name in names}
    return [name for name, path in paths.items() if not (path.is_symlink() or path.is_file() or path.is_dir())]
