"""Reports of tests and coverage in workspace archives: found by their names, summed up when an archive is stored.

The summary lies beside the archive and goes wherever it goes, with the archive's last reference as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

import msgspec

from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import BadRequestError, NotFoundError
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runservice.model import object_paths
from agola_core.runservice.model.reports import Report, RunTests, sum_up
from agola_core.runservice.model.requests import RunBundle
from agola_core.runtime import faultpoints

faultpoints.declare("reports.before-write")

_NAMES = re.compile(r"(?:.*junit.*|test-.*|coverage.*|cobertura.*|jacoco.*)\.xml", re.IGNORECASE | re.DOTALL)
_LIKELY = re.compile(rb"junit|test-|coverage|cobertura|jacoco", re.IGNORECASE)
_ENDING = re.compile(rb"\.xml")
_MAX_NAME_BYTES = 255
_MAX_LOOKS = 10_000
_MAX_FILES = 500
_MAX_PATH = 300
_KEPT_SUMMARIES = 64


class _Summary(msgspec.Struct, frozen=True):
    """The summary object stored beside an archive."""

    reports: list[Report]


_decode = msgspec.json.Decoder(_Summary).decode


def is_report(path: str) -> bool:
    """Return whether a file is read as a report, by its name.

    Example:
        >>> [name for name in ("out/junit.xml", "TEST-a.B.xml", "coverage.xml", "pom.xml") if is_report(name)]
        ['out/junit.xml', 'TEST-a.B.xml', 'coverage.xml']
    """
    return _NAMES.fullmatch(path.rpartition("/")[2]) is not None


class ReportSpotter:
    """Looks, while an archive passes by, whether a report may be in it, so that most archives are read once.

    Args:
        pieces: The archive.

    Attributes:
        spotted: Whether there may be one among the pieces that have passed.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self._before = b""
        self._looks = 0
        self.spotted = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces, once."""
        for piece in self._pieces:
            if not self.spotted:
                self._look(piece)
            yield piece

    def _look(self, piece: bytes) -> None:
        data = self._before + piece
        for ending in _ENDING.finditer(data, max(0, len(self._before) - 3)):
            at = ending.start()
            earliest = max(0, at - _MAX_NAME_BYTES)
            self._looks += 1
            if self._looks > _MAX_LOOKS or _LIKELY.search(data, max(earliest, data.rfind(b"/", earliest, at)), at):
                self.spotted = True
                break
        self._before = data[-_MAX_NAME_BYTES:]


def summarize(storage: ObjectStorage, task_id: str, step: int) -> bool:
    """Sum up the reports of a stored archive beside it; return whether it has any.

    Raises:
        NotFoundError: The archive is not stored.
    """
    reports = read_reports(storage.open_stream(object_paths.archive(task_id, step)))
    if not reports:
        return False
    faultpoints.reach("reports.before-write")
    storage.write(object_paths.reports(task_id, step), msgspec.json.encode(_Summary(reports)))
    return True


def read_reports(archive: Iterable[bytes]) -> list[Report]:
    """Return the reports of an archive, in their order, as far as it can be read and the limits let it.

    Args:
        archive: A tar, plain or zstd; not trusted.
    """
    from agola_core.runservice.artifacts.report_parser import (  # noqa: PLC0415 - few use it
        MAX_BYTES,
        MAX_FAILED,
        parse_report,
    )
    from agola_core.tar_stream import Limits, read_members  # noqa: PLC0415 - few use it

    found: list[Report] = []
    room, kept = 2 * MAX_BYTES, MAX_FAILED
    limits = Limits(ratio=10)  # executors compress nothing
    try:
        for member in read_members(archive, limits, everything=True):
            if not member.info.isreg() or not is_report(member.info.name):
                continue
            path = _shortened("/".join(member.parts))
            if len(found) == _MAX_FILES:
                found.append(Report(path, problem=f"the archive has more than {_MAX_FILES} reports"))
                break
            if member.info.size > min(room, MAX_BYTES):
                found.append(Report(path, problem=f"it has {member.info.size} bytes, which is too many"))
                continue
            report = parse_report(path, member.pieces())
            room -= member.info.size
            report = msgspec.structs.replace(report, failed=report.failed[:kept])
            kept -= len(report.failed)
            found.append(report)
    except BadRequestError as error:
        if found:
            found.append(Report("the archive", problem=str(error)))
    return found


def _shortened(path: str) -> str:
    """Return the end of a member's name as text: it may be long, and bytes that are none."""
    return path.encode(errors="replace").decode()[-_MAX_PATH:]


class ReportReader:
    """Reads summaries of reports. Thread-safe; it keeps the last ones, as a page asks for them every second.

    Args:
        storage: Where they are.
    """

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self._load = lru_cache(maxsize=_KEPT_SUMMARIES)(self._read)

    def run_tests(self, bundle: RunBundle) -> RunTests:
        """Return what the tasks of a run have reported so far, in the order of its graph."""
        ordered = sorted(bundle.run_config.tasks.values(), key=lambda task: (task.level, task.name))
        states = ((item, bundle.run.tasks.get(item.id)) for item in ordered)
        return sum_up(
            (
                item.id,
                item.name,
                item.depends or {},
                [report for step in task.reports for report in self._load(item.id, step)],
            )
            for item, task in states
            if task is not None
        )

    def _read(self, task_id: str, step: int) -> list[Report]:
        """Return the summed-up reports of an archive; none when there is no summary."""
        try:
            return _decode(self._storage.read(object_paths.reports(task_id, step))).reports
        except NotFoundError:
            return []
        except DECODE_ERRORS:
            return [Report(f"step {step}", problem="the summary of its reports is damaged")]
