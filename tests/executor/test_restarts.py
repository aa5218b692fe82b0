"""Killing the executor, the service, or both, at every point where something is half done: each step runs once."""

import contextlib
import itertools
import os
import signal
import time

import httpx2
import pytest

from agola_core.executor import executor, reporter
from agola_core.executor.tasks import runner as taskrunner
from agola_core.runtime import faultpoints

assert executor
assert reporter
assert taskrunner
POINTS = sorted(name for name in faultpoints.declared() if name.startswith("executor."))
WAIT = 'while [ -n "$GATE" ] && [ ! -e "$GATE" ]; do sleep 0.02; done'
TWO_STEPS = (f"echo x >>$COUNT/one; {WAIT}; echo begun", "echo x >>$COUNT/two; echo done")


def check(installation, run_id):
    """Check that a run has succeeded, and that each of its steps ran once."""
    run = installation.finished(run_id)
    assert run["result"] == "success", run["tasks"]["a"].get("reason")
    for name in ("one", "two"):
        assert (installation.root / name).read_text() == "x\n", f"step {name} did not run once"
    assert [step["exit_code"] for step in run["tasks"]["a"]["steps"]] == [0, 0]
    return run


BEGINNING = ["executor.before-start", "executor.before-process-noted", "executor.before-begin", "executor.after-begin"]


def two_reports(installation, run_id, gate):
    """Let a step end once the service knows that it runs: an executor reports the newest state alone, so one report
    may stand for all."""
    while installation.executor.alive:
        task = installation.client.get(f"/api/v1alpha/runs/{run_id}").json()["run"]["tasks"]["a"]
        if task["status"] == "running":
            break
    gate.touch()


KILLS = {*itertools.product(POINTS, (1, 2)), ("executor.before-save", 3)} - {
    ("executor.before-remove", 2),
    ("executor.before-end", 2),
}


@pytest.mark.parametrize(("point", "hit"), sorted(KILLS - {(point, 1) for point in BEGINNING}))
def test_the_executor_dies_at(installation, make_task, point, hit):
    installation.start_service()
    installation.start_executor(fault=f"{point}:{hit}")
    gate = installation.root / "gate"
    environment = {"COUNT": str(installation.root), "GATE": str(gate)}
    run_id = installation.create(make_task("a", *TWO_STEPS, environment=environment))
    if point == "executor.before-report":
        two_reports(installation, run_id, gate)
    else:
        gate.touch()
    installation.executor.popen.wait(60)
    installation.start_executor("--stop-tasks")
    check(installation, run_id)
    assert installation.executor.alive


AT_THE_END = [("references.before-write", 1), ("fetch.before-log", 2), ("archive.before-wal", 1)]
SERVICE_KILLS = [
    *(("runservice.before-txn", hit, "") for hit in (2, 4, 6)),
    *((*kill, "") for kill in AT_THE_END),
    ("fetch.before-times", 1, ""),
    *((*kill, "executor.before-report:2") for kill in AT_THE_END),  # the executor dies first, then the service
]


@pytest.mark.parametrize(("point", "hit", "executor_point"), SERVICE_KILLS)
def test_the_service_dies_at(installation, make_task, point, hit, executor_point):
    installation.start_service(fault=f"{point}:{hit}")
    installation.start_executor(*([] if executor_point else ["--stop-tasks"]), fault=executor_point)
    gate = installation.root / "gate"
    task = make_task("a", *TWO_STEPS, environment={"COUNT": str(installation.root), "GATE": str(gate)})
    run_id = None
    if not executor_point:
        gate.touch()
    with contextlib.suppress(httpx2.HTTPError):
        run_id = installation.create(task)
    if executor_point:
        two_reports(installation, run_id, gate)
        installation.executor.popen.wait(60)
        installation.start_executor("--stop-tasks")
    installation.service.popen.wait(60)
    installation.start_service()
    if run_id is None:  # it died before it answered: the run is there, or it is not
        runs = installation.client.get("/api/v1alpha/runs").json()["runs"]
        run_id = runs[0]["id"] if runs else installation.create(task)
    check(installation, run_id)
    for step in (0, 1):  # also where it died between a log and its times
        asked = {"runid": run_id, "taskid": "a", "step": step, "timestamps": ""}
        assert installation.client.get("/api/v1alpha/logs", params=asked).text.startswith("20")
    assert installation.executor.alive


def test_a_running_step_goes_on_without_its_executor(installation, make_task):
    gate = installation.root / "gate"
    command = f"echo begun; echo x >>$COUNT/one; while [ ! -e {gate} ]; do sleep 0.02; done; echo ended; exit 4"
    installation.start_service()
    installation.start_executor()
    run_id = installation.create(make_task("a", command, environment={"COUNT": str(installation.root)}))
    wait_for(installation.root / "one")
    installation.executor.kill()
    installation.start_executor("--stop-tasks")
    gate.touch()
    run = installation.finished(run_id)
    assert run["result"] == "failed"
    assert run["tasks"]["a"]["steps"][0]["exit_code"] == 4
    assert installation.log(run_id, "a") == "begun\nended\n"
    asked = {"runid": run_id, "taskid": "a", "step": 0, "timestamps": ""}
    times = [line[:24] for line in installation.client.get("/api/v1alpha/logs", params=asked).text.splitlines()]
    assert times == sorted(times)
    assert run["tasks"]["a"]["steps"][0]["start_time"][:19] <= times[0][:19] < times[1]  # also over the restart
    assert (installation.root / "one").read_text() == "x\n"


def test_a_step_that_ended_without_its_executor_keeps_its_result(installation, make_task):
    gate, ended = installation.root / "gate", installation.root / "ended"
    command = f"echo x >>$COUNT/one; while [ ! -e {gate} ]; do sleep 0.02; done; echo said; touch {ended}"
    installation.start_service()
    installation.start_executor()
    run_id = installation.create(make_task("a", command, environment={"COUNT": str(installation.root)}))
    wait_for(installation.root / "one")
    installation.executor.kill()
    gate.touch()
    wait_for(ended)
    installation.start_executor("--stop-tasks")
    run = installation.finished(run_id)
    assert run["result"] == "success", run["tasks"]["a"]["reason"]
    assert installation.log(run_id, "a") == "said\n"


@pytest.mark.parametrize("point", BEGINNING)
def test_a_step_is_found_wherever_its_executor_died_at_its_start(installation, make_task, point):
    """It goes on when it had begun, and begins when it had not; it is still there to be stopped, too."""
    gate = installation.root / "gate"
    command = f"echo x >>$COUNT/one; while [ ! -e {gate} ]; do sleep 0.02; done; exit 4"
    installation.start_service()
    installation.start_executor(fault=f"{point}:1")
    run_id = installation.create(make_task("a", command, environment={"COUNT": str(installation.root)}))
    installation.executor.popen.wait(60)
    installation.start_executor("--stop-tasks")
    wait_for(installation.root / "one")
    gate.touch()
    run = installation.finished(run_id)
    assert run["tasks"]["a"]["steps"][0]["exit_code"] == 4
    assert (installation.root / "one").read_text() == "x\n"


def test_a_step_that_was_killed_without_its_executor_is_called_killed(installation, make_task):
    installation.start_service()
    installation.start_executor()
    command = "echo $PPID >$COUNT/pid; mv $COUNT/pid $COUNT/shell; while :; do sleep 0.02; done"
    run_id = installation.create(make_task("a", command, environment={"COUNT": str(installation.root)}))
    wait_for(installation.root / "shell")
    installation.executor.kill()
    os.kill(int((installation.root / "shell").read_text()), signal.SIGKILL)
    installation.start_executor("--stop-tasks")
    run = installation.finished(run_id)
    assert run["tasks"]["a"]["reason"] == "step 0 was killed: it left no exit code"
    step = run["tasks"]["a"]["steps"][0]
    assert (step["phase"], step.get("exit_code")) == ("failed", None)


def test_tasks_end_while_the_service_is_away_and_are_delivered_later(installation, make_task):
    gate = installation.root / "gate"
    save = {"type": "save_to_workspace", "contents": [{"source_dir": ".", "paths": ["f"]}]}
    command = f"echo x >>$COUNT/one; while [ ! -e {gate} ]; do sleep 0.02; done; echo kept >f"
    installation.start_service()
    installation.start_executor("--stop-tasks")
    restore = {"type": "restore_workspace"}
    run_id = installation.create(
        make_task("a", command, save, "echo x >>$COUNT/two", environment={"COUNT": str(installation.root)}),
        make_task("b", restore, "cat f", depends=["a"]),
    )
    wait_for(installation.root / "one")
    installation.service.kill()
    gate.touch()
    wait_for(installation.root / "two")
    assert installation.executor.alive
    installation.start_service()
    assert installation.finished(run_id)["result"] == "success"
    assert installation.log(run_id, "b", 1) == "kept\n"


def test_a_step_waits_for_a_service_that_is_away(installation, make_task):
    gate = installation.root / "gate"
    save = {"type": "save_cache", "key": "k", "contents": [{"source_dir": "c"}]}
    command = f"mkdir c; echo x >c/f; echo x >>$COUNT/one; while [ ! -e {gate} ]; do sleep 0.02; done"
    installation.start_service()
    installation.start_executor("--stop-tasks")
    run_id = installation.create(make_task("a", command, save, environment={"COUNT": str(installation.root)}))
    wait_for(installation.root / "one")
    installation.service.kill()
    gate.touch()
    (log,) = wait_for_log(installation.root, "1.log")
    assert "trying again" in log
    installation.start_service()
    assert installation.finished(run_id)["result"] == "success"


def test_both_die_at_once(installation, make_task):
    gate = installation.root / "gate"
    command = f"echo x >>$COUNT/one; while [ ! -e {gate} ]; do sleep 0.02; done"
    installation.start_service()
    installation.start_executor()
    run_id = installation.create(make_task("a", command, environment={"COUNT": str(installation.root)}))
    wait_for(installation.root / "one")
    installation.service.kill()
    installation.executor.kill()
    gate.touch()
    installation.start_executor("--stop-tasks")
    installation.start_service()
    assert installation.finished(run_id)["result"] == "success"
    assert (installation.root / "one").read_text() == "x\n"


def test_an_executor_that_starts_before_its_service_registers_later(installation, make_task):
    installation.start_executor("--stop-tasks")
    installation.start_service()
    assert installation.finished(installation.create(make_task("a", "true")))["result"] == "success"


def test_a_stopped_executor_leaves_its_steps_to_the_next_one(installation, make_task):
    gate = installation.root / "gate"
    command = f"echo x >>$COUNT/one; while [ ! -e {gate} ]; do sleep 0.02; done"
    installation.start_service()
    installation.start_executor()
    run_id = installation.create(make_task("a", command, environment={"COUNT": str(installation.root)}))
    wait_for(installation.root / "one")
    assert installation.executor.stop()[0] == 0
    gate.touch()
    installation.start_executor("--stop-tasks")
    assert installation.finished(run_id)["result"] == "success"
    assert (installation.root / "one").read_text() == "x\n"


def wait_for(path, seconds=60):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.01)


def wait_for_log(root, name, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = [path.read_text() for path in root.glob(f"executor/tasks/*/steps/{name}")]
        if any("again" in text for text in found):
            return found
        time.sleep(0.01)
    raise AssertionError("no log")
