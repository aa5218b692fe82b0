"""Says what the tasks of a run reported about tests and coverage."""

from __future__ import annotations

from collections.abc import Iterator

from agola_cli.output.records import printable, styled
from agola_core.runservice.model.reports import Coverage, FailedTest, Outcomes, RunTests

_MAX_TESTS = 10
_MAX_LINES = 6
_MAX_COLUMNS = 300


def result_lines(found: RunTests, command: str) -> Iterator[str]:
    """Yield the sums of a run's tests and coverage, by task where there are several, and the failed tests.

    Args:
        found: What the tasks reported.
        command: Prints all of it.
    """
    if found.tests is not None or found.coverage is not None:
        yield _sums(found.tests, found.coverage)
    summed = [task for task in found.tasks if task.tests is not None or task.coverage is not None]
    for task in summed if len(summed) > 1 else ():
        yield f"  {printable(task.name)}: {_sums(task.tests, task.coverage)}"
    failed = [(task.name, test) for task in found.tasks for test in task.failed]
    for name, test in failed[:_MAX_TESTS]:
        title = "::".join(part for part in (test.suite, test.name) if part)
        yield f"  {styled('✗', 'red')} {printable(name)}: {printable(title)[:_MAX_COLUMNS]}"
        yield from (f"      | {line}" for line in _explanation(test))
    more = (found.tests.failed if found.tests else 0) - len(failed[:_MAX_TESTS])
    if more > 0:
        yield f"  and {more} more that failed: {command}"
    for task in found.tasks:
        for problem in task.problems:
            yield f"  {printable(task.name)}: not read: {printable(problem)[:_MAX_COLUMNS]}"


def _sums(tests: Outcomes | None, coverage: Coverage | None) -> str:
    parts = []
    if tests is not None:
        counts = [styled(f"{tests.failed} failed", "red")] if tests.failed else []
        counts.append(f"{tests.passed} passed")
        if tests.skipped:
            counts.append(f"{tests.skipped} skipped")
        parts.append(f"tests: {', '.join(counts)} ({tests.seconds:.1f}s)")
    if coverage is not None:
        parts.append(f"coverage: {coverage.text}")
    return ", ".join(parts)


def _explanation(test: FailedTest) -> list[str]:
    """Return the lines that say why a test failed: its message, or else the beginning of the details."""
    lines = [line.rstrip() for line in (test.message or test.details).splitlines() if line.strip()]
    shown = [printable(line)[:_MAX_COLUMNS] for line in lines[:_MAX_LINES]]
    return [*shown, "…"] if len(lines) > _MAX_LINES else shown
