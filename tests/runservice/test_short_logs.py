"""Logs that say nothing, and the only line of a set-up, come with the report of a task's end: none of it is a file."""

import pytest

from agola_core.executor.tasks.directory import TaskDirectories, first_line
from agola_core.executor.tasks.files import TaskFiles
from agola_core.executor.tasks.pool import TaskPool
from agola_core.objectstorage.port import ObjectInfo
from agola_core.runservice.model.requests import LogPart, RunCreateRequest
from agola_core.runservice.model.types import (
    ExecutorPhase,
    ExecutorTask,
    ExecutorTaskStatus,
    ExecutorTaskStepStatus,
    FetchPhase,
    RunConfigTask,
    RunResult,
    RunStep,
    RunTask,
    RunTaskStep,
    TaskStatus,
)
from agola_core.runservice.rules.advance import take_status, to_fetch
from agola_core.runservice.scheduling.executor_reports import _taken
from agola_core.runtime.context import Context
from agola_core.standalone import Standalone

SECRET = "correct horse battery"
LATER = (
    '(while [ ! -e "$HOME/go" ]; do sleep 0.01; done; echo late; : >"$HOME/said") &',
    'touch "$HOME/go"; while [ ! -e "$HOME/said" ]; do sleep 0.01; done',
)
"""A step that says something after its end."""


def ran(standalone, commands, **fields):
    tasks = {
        name: RunConfigTask(id=name, name=fields.get("name", name), steps=[RunStep(command=text) for text in texts])
        for name, texts in commands.items()
    }
    request = RunCreateRequest(run_config_tasks=tasks, group="/project/p", secrets=fields.get("secrets"))
    service = standalone.service
    run = service.create_run(request).run
    while not run.phase.is_finished:
        run = service.wait_change(run, 60.0)
    assert run.result is RunResult.SUCCESS
    service.wait_archived([run.id], 60.0)
    return service.get_run(run.id).run


def stored(standalone):
    return sorted(info.path for info in standalone.datamanager.storage.list("logs/") if isinstance(info, ObjectInfo))


@pytest.fixture
def standalone(tmp_path):
    with Standalone(tmp_path / "data") as standalone:
        yield standalone


def test_only_logs_that_say_something_are_stored_and_all_are_read(standalone):
    run = ran(standalone, {"quiet": ["true"], "said": ["echo hello", "true"], "late": LATER})
    logs = standalone.service
    steps = ["logs/late/data/steps/0.log", "logs/said/data/steps/0.log"]
    times = [f"{path}.times" for path in steps]
    assert stored(standalone) == sorted(steps + times + [f"logs/{name}/runs/{run.id}" for name in ("late", "said")])
    for name in run.tasks:
        line = f"executor starts task {name!r}\n".encode()
        for follow in (False, True):
            assert b"".join(logs.open_log(run.id, name, None, follow=follow)) == line
        [stamped] = logs.open_log(run.id, name, None, follow=False, part=LogPart(timestamps=True))
        assert stamped.endswith(line)
        assert stamped.startswith(run.tasks[name].setup_step.start_time.strftime("%Y-%m-%dT%H:%M:%S").encode())
        assert b"".join(logs.open_log(run.id, name, None, follow=False, part=LogPart(tail=1))) == line
        assert b"".join(logs.open_log(run.id, name, None, follow=False, part=LogPart(offset=9))) == line[9:]
        with logs.log_view(run.id, name, None, Context()) as view:
            assert [piece.lines for piece in view.window(0, 10)] == [[line]]
    said = {
        (name, number): b"".join(logs.open_log(run.id, name, number, follow=False))
        for name, task in run.tasks.items()
        for number in range(len(task.steps))
    }
    assert said == {
        ("quiet", 0): b"",
        ("said", 0): b"hello\n",
        ("said", 1): b"",
        ("late", 0): b"late\n",
        ("late", 1): b"",
    }
    with logs.log_view(run.id, "quiet", 0, Context()) as view:
        assert view.window(0, 10) == []
    assert b"".join(logs.open_log(run.id, "quiet", 0, follow=False, part=LogPart(tail=5, timestamps=True))) == b""


def test_a_task_without_anything_to_fetch_is_forgotten_with_its_end_and_deleted_with_its_run(standalone):
    run = ran(standalone, {"quiet": ["true"]})
    assert standalone.service.executor_side.tasks(standalone.executor.id) == []
    standalone.service.delete_run(run.id)
    assert stored(standalone) == []


def test_the_line_of_a_set_up_shows_no_secret(standalone):
    run = ran(standalone, {"a": ["true"]}, name=f"with {SECRET}", secrets=[SECRET])
    [text] = standalone.service.open_log(run.id, "a", None, follow=False)
    assert text == b"executor starts task 'with " + b"*" * len(SECRET) + b"'\n"


def test_texts_of_a_report_are_bounded_and_without_secrets():
    def reported(text):
        step = ExecutorTaskStepStatus(phase=ExecutorPhase.SUCCESS, log_text=text)
        return ExecutorTask(status=ExecutorTaskStatus(phase=ExecutorPhase.SUCCESS, setup_step=step, steps=[step]))

    for text, taken in (("x" * 4096, "x" * 4096), ("x" * 4097, None), ("", ""), (f"a {SECRET}", "a ***")):
        status = _taken(reported(text), "e", [SECRET])
        assert status.executor_id == "e"
        assert [step.log_text for step in (status.setup_step, *status.steps)] == [taken] * 2


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("text", [None, ""])
def test_a_log_is_fetched_unless_the_end_of_its_task_brings_it(text, ended):
    """Executors of earlier releases, and Agola's, bring none."""
    fresh = RunTaskStep(phase=ExecutorPhase.NOT_STARTED, log_phase=FetchPhase.NOT_STARTED)
    task = RunTask(id="a", status=TaskStatus.RUNNING, setup_step=fresh, steps=[fresh])
    step = ExecutorTaskStepStatus(phase=ExecutorPhase.SUCCESS, log_text=text)
    phase = ExecutorPhase.SUCCESS if ended else ExecutorPhase.RUNNING
    reported = ExecutorTask(id="a", status=ExecutorTaskStatus(phase=phase, setup_step=step, steps=[step]))
    taken = take_status(task, reported)
    brought = ended and text is not None
    assert to_fetch(taken) == ([] if brought or not ended else [("log", None), ("log", 0)])
    for found in (taken.setup_step, *taken.steps):
        assert (found.log_phase, found.log_text) == (
            (FetchPhase.FINISHED, "") if brought else (FetchPhase.NOT_STARTED, None)
        )


def test_a_set_ups_log_has_a_file_once_it_says_more_and_an_earlier_releases_is_gone_on_with(tmp_path):
    directories = TaskDirectories(tmp_path / "tasks")
    files = TaskFiles(directories, TaskPool(0), "e", 1 << 20)
    begun = ExecutorTaskStatus(setup_step=ExecutorTaskStepStatus(phase=ExecutorPhase.RUNNING))
    for name, before in (("new", b""), ("old", b"executor starts task 'it'\n")):
        directory, task = directories.of(name), ExecutorTask(id=name, task_name="it", status=begun)
        directory.create()
        directory.save(task)
        if before:
            directory.log(None).write_bytes(before)
        assert b"".join(files.open_log(name, None, follow=False, offset=9)) == b"starts task 'it'\n"
        assert files.log_size(name, None) == len(first_line(task))
        directory.append_log(None, "more", first_line(task))
        directory.append_log(None, "most", first_line(task))
        assert b"".join(files.open_log(name, None, follow=False)) == b"executor starts task 'it'\nmore\nmost\n"
