"""View models of what a run's tasks reported about tests and coverage, and of the archives that they saved. Pure."""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec

from agola_core.runservice.model.reports import Coverage, FailedTest, Outcomes, RunTests
from agola_core.runservice.model.requests import RunBundle
from agola_core.runservice.model.types import ExecutorPhase, FetchPhase, RunConfigTask, RunTask
from agola_http.page.views import step_name
from agola_http.protocol.names import PREFIX

_MAX_FAILED, _MAX_DETAILS = 25, 1500


class ReportedView(msgspec.Struct, frozen=True):
    """What a task, or the whole run, reported."""

    id: str
    name: str
    tests: Outcomes | None
    coverage: str


class FailedView(msgspec.Struct, frozen=True):
    """A failed test."""

    id: str
    task: str
    suite: str
    name: str
    message: str
    details: str


class SavedView(msgspec.Struct, frozen=True):
    """An archive that can be downloaded."""

    id: str
    task: str
    step: str
    url: str
    file: str


class ResultsView(msgspec.Struct, frozen=True):
    """The section of a run's page with its tests and archives.

    Attributes:
        whole: What the run reported; None when nothing.
        tasks: The same by task, where there are several.
        failed: Failed tests, as many as a page shows.
        unlisted: How many more there are.
        problems: Files that could not be read, with their tasks.
        saved: Archives.
        url: The whole report, as JSON.
    """

    whole: ReportedView | None
    tasks: tuple[ReportedView, ...]
    failed: tuple[FailedView, ...]
    unlisted: int
    problems: tuple[str, ...]
    saved: tuple[SavedView, ...]
    url: str


def view_results(bundle: RunBundle, found: RunTests) -> ResultsView:
    """Return what a run's page shows below its name.

    Args:
        bundle: The run.
        found: What its tasks reported.
    """
    failed = [
        _view_failed(f"{task.task_id}-{number}", task.name, test)
        for task in found.tasks
        for number, test in enumerate(task.failed)
    ]
    shown = tuple(failed[:_MAX_FAILED])
    total = found.tests.failed if found.tests else 0
    reported = tuple(ReportedView(task.task_id, task.name, task.tests, _text(task.coverage)) for task in found.tasks)
    has_sums = found.tests is not None or found.coverage is not None
    return ResultsView(
        whole=ReportedView("", "", found.tests, _text(found.coverage)) if has_sums else None,
        tasks=reported if len(reported) > 1 else (),
        failed=shown,
        unlisted=max(0, total - len(shown)),
        problems=tuple(f"{task.name}: {problem}" for task in found.tasks for problem in task.problems),
        saved=tuple(
            _view_saved(bundle.run.id, item, task, step)
            for item in sorted(bundle.run_config.tasks.values(), key=lambda item: (item.level, item.name))
            if (task := bundle.run.tasks.get(item.id)) is not None
            for step in task.workspace_archives
            if step < len(item.steps) and _is_stored(task, step)
        ),
        url=f"{PREFIX}/runs/{bundle.run.id}/tests",
    )


def _text(coverage: Coverage | None) -> str:
    return coverage.text if coverage is not None else ""


def _view_failed(place: str, task: str, test: FailedTest) -> FailedView:
    return FailedView(f"test-{place}", task, test.suite, test.name, test.message, test.details[:_MAX_DETAILS])


def _is_stored(task: RunTask, step: int) -> bool:
    phases = dict(zip(task.workspace_archives, task.workspace_archives_phase, strict=False))
    ran = step < len(task.steps) and task.steps[step].phase is ExecutorPhase.SUCCESS
    return ran and phases.get(step) is FetchPhase.FINISHED and step not in task.archives_lost


def _view_saved(run_id: str, item: RunConfigTask, task: RunTask, step: int) -> SavedView:
    asked = urlencode({"runid": run_id, "taskid": task.id, "step": step})
    name = "".join(char if char.isalnum() or char in "-._" else "_" for char in item.name[:100])
    return SavedView(
        id=f"saved-{task.id}-{step}",
        task=item.name,
        step=step_name(item.steps[step]),
        url=f"{PREFIX}/archives?{asked}",
        file=f"{name}-{step}.tar",
    )
