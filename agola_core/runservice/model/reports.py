"""What the tasks of a run reported about its tests and its coverage. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

MAX_FAILED_TESTS = 500
"""How many failed tests are listed of one run; all are counted."""

_MAX_PROBLEMS = 20


class Outcomes(msgspec.Struct, frozen=True):
    """How the tests of one or more reports ended.

    Attributes:
        total: All tests.
        failed: Those that failed, or broke off with an error.
        skipped: Those that were not run.
        seconds: How long they took, one after the other.
    """

    total: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0

    @property
    def passed(self) -> int:
        """Those that neither failed nor were skipped."""
        return max(0, self.total - self.failed - self.skipped)

    def __add__(self, other: Outcomes) -> Outcomes:
        """Return the sum."""
        return Outcomes(
            self.total + other.total,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.seconds + other.seconds,
        )


class Coverage(msgspec.Struct, frozen=True):
    """How many lines of code tests have run.

    Attributes:
        covered: The lines that were run.
        lines: All lines that can be run.
    """

    covered: int = 0
    lines: int = 0

    @property
    def text(self) -> str:
        """The share that was run, in words; no share where there are no lines. Only all of them are 100 %."""
        if not self.lines:
            return "no lines"
        least, most = 0.1 * (self.covered > 0), 100 - 0.1 * (self.covered < self.lines)
        return f"{min(max(100 * self.covered / self.lines, least), most):.1f}% of {self.lines:,} lines"

    def __add__(self, other: Coverage) -> Coverage:
        """Return the sum."""
        return Coverage(self.covered + other.covered, self.lines + other.lines)


class FailedTest(msgspec.Struct, frozen=True):
    """A test that failed. Its texts are a step's and may have any character that XML allows.

    Attributes:
        name: Its name.
        suite: Its class, or its suite.
        kind: `failure`, or `error` when it broke off.
        message: Why, in short.
        details: What its runner says besides; the beginning where it is long.
    """

    name: str
    suite: str = ""
    kind: str = "failure"
    message: str = ""
    details: str = ""


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file of an archive that reports tests or coverage.

    Attributes:
        path: Its path in the archive.
        digest: Of its bytes: a file that is saved again under its path, by the task or by one after it, counts once.
        tests: Its tests, if it has any.
        failed: The failed ones, as far as they are kept.
        coverage: Its coverage, if it has any.
        problem: Why it, or something in it, could not be read; "" when everything was.
    """

    path: str
    digest: str = ""
    tests: Outcomes | None = None
    failed: tuple[FailedTest, ...] = ()
    coverage: Coverage | None = None
    problem: str = ""


class TaskTests(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one task reported.

    Attributes:
        task_id: The task.
        name: Its name.
        tests: Its tests, if it reported any.
        failed: The failed ones, as far as they are listed.
        coverage: Its coverage, if it reported any.
        problems: Files that could not be read, and why; the first twenty.
    """

    task_id: str
    name: str
    tests: Outcomes | None = None
    failed: tuple[FailedTest, ...] = ()
    coverage: Coverage | None = None
    problems: tuple[str, ...] = ()


class RunTests(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the tasks of a run reported.

    Attributes:
        tests: The tests of all tasks; None when none reported any.
        coverage: The coverage of all reports; None when there is none.
        tasks: Each task that reported something.
    """

    tests: Outcomes | None = None
    coverage: Coverage | None = None
    tasks: tuple[TaskTests, ...] = ()


T = TypeVar("T", Outcomes, Coverage)


def sum_up(tasks: Iterable[tuple[str, str, Iterable[str], Iterable[Report]]]) -> RunTests:
    """Return what a run's tasks reported; a file that a later task restored and saved again counts for the first.

    Args:
        tasks: For each task its id, its name, the ids of those it depends on, which come before it, and its reports.
    """
    saved: dict[str, set[tuple[str, str]]] = {}
    found: list[TaskTests] = []
    listed = 0
    for task_id, name, parents, reports in tasks:
        seen = saved[task_id] = set().union(*(saved.get(parent, ()) for parent in parents))
        task = TaskTests(task_id, name)
        for report in reports:
            if (report.path, report.digest) in seen:
                continue
            if report.digest:
                seen.add((report.path, report.digest))
            problems = task.problems
            if report.problem and len(problems) < _MAX_PROBLEMS:
                problems = (*problems, f"{report.path}: {report.problem}")
            failed = report.failed[: MAX_FAILED_TESTS - listed]
            listed += len(failed)
            task = TaskTests(
                task_id,
                name,
                _plus(task.tests, report.tests),
                (*task.failed, *failed),
                _plus(task.coverage, report.coverage),
                problems,
            )
        if task != TaskTests(task_id, name):
            found.append(task)
    tests, coverage = None, None
    for task in found:
        tests, coverage = _plus(tests, task.tests), _plus(coverage, task.coverage)
    return RunTests(tests, coverage, tuple(found))


def _plus(one: T | None, other: T | None) -> T | None:
    if one is None or other is None:
        return one or other
    return one + other
