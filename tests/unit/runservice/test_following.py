"""A run is followed: its logs in the order of its tasks, its result also when the service goes away."""

import socket
import threading

import pytest

from agola_cli.output.display import PlainDisplay
from agola_cli.runs import follow
from agola_cli.runs.interruption import Interruption
from agola_cli.runs.log_follower import LogFollower
from agola_cli.runs.patience import Patience
from agola_core.errors import UnavailableError
from agola_core.runservice.model.requests import RunBundle
from agola_core.runservice.model.types import (
    ExecutorPhase,
    FetchPhase,
    Run,
    RunConfig,
    RunConfigTask,
    RunPhase,
    RunResult,
    RunStep,
    RunTask,
    RunTaskStep,
    TaskStatus,
)
from agola_http.client import Client

STEP = RunTaskStep(phase=ExecutorPhase.SUCCESS)


def ended(*names, **fields):
    """Return a run that has succeeded, whose tasks each depend on the one before."""
    before = dict(zip(names[1:], names[:-1], strict=True))
    config = {
        name: RunConfigTask(
            id=name,
            name=name,
            level=level,
            steps=[RunStep(name="one"), RunStep(name="two")],
            depends={before[name]: None} if name in before else {},
        )
        for level, name in enumerate(names)
    }
    tasks = {name: RunTask(id=name, status=TaskStatus.SUCCESS, steps=[STEP, STEP], **fields) for name in names}
    run = Run(id="r", name="r", phase=RunPhase.FINISHED, result=RunResult.SUCCESS, tasks=tasks)
    return RunBundle(run, RunConfig(id="r", name="r", tasks=config))


@pytest.fixture
def gone():
    """A client of a service that went away."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    with Client(url, retries=0) as client:
        yield client


def test_the_log_of_a_task_is_shown_after_those_that_it_depends_on(gone, capsys):
    later = threading.Event()

    class Slow(Patience):
        """The log of the first task comes last, as far as it can."""

        def follow_log(self, run_id, task_id, step, part):
            if task_id == "first":
                later.wait(0.1)
            yield b"line\n"
            if task_id == "last" and step == 1:
                later.set()

    bundle = ended("first", "last")
    run = Run(id="r", tasks={name: bundle.run.tasks[name] for name in ("last", "first")})
    display = PlainDisplay(bundle)
    follower = LogFollower(Slow(gone, display.say), display, bundle.run_config.tasks)
    follower.take(run)
    follower.join()
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "| line" in line]
    assert lines == ["first", "first", "last", "last"]
    assert not follower.has_lost


def test_a_run_that_has_ended_keeps_its_result_when_the_service_goes_away(gone, capsys, monkeypatch):
    monkeypatch.setattr(follow, "ENDING_SECONDS", 0.1)
    monkeypatch.setattr(follow, "Patience", lambda service, say, option, _: Patience(service, say, option, seconds=0))
    bundle = ended("a", "b", workspace_archives=[0], workspace_archives_phase=[FetchPhase.NOT_STARTED])
    run = follow.follow_run(gone, bundle, Interruption(), option=" --url x")
    assert run.result is RunResult.SUCCESS
    said = capsys.readouterr().out
    assert "what the tasks reported and saved cannot be read: run r has ended" in said
    assert "agola-core runs show r --url x" in said


def test_steps_after_a_log_that_cannot_be_read_are_not_waited_for(gone, capsys):
    bundle = ended("a", "b")
    display = PlainDisplay(bundle)
    follower = LogFollower(Patience(gone, display.say, seconds=0), display, bundle.run_config.tasks)
    follower.take(bundle.run)
    follower.join()
    assert follower.has_lost
    said = [line for line in capsys.readouterr().out.splitlines() if "cannot be read" in line]
    assert len(said) == 2
    with pytest.raises(UnavailableError, match="run r has ended, look at it again by `agola-core runs show r --url x`"):
        Patience(gone, lambda _: None, " --url x", seconds=0).wait_change(bundle.run, 0)
