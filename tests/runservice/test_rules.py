"""The rules by which runs advance: graphs, statuses, restarts, placement."""

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agola_core.errors import BadRequestError
from agola_core.runservice.model.graph import ancestors, graph_errors, with_levels
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import (
    Container,
    Depend,
    DependCondition,
    Executor,
    ExecutorPhase,
    ExecutorTaskStepStatus,
    RunConfigTask,
    RunPhase,
    RunResult,
    RunStep,
    Runtime,
    SaveToWorkspaceStep,
    TaskStatus,
)
from agola_core.runservice.rules import new_run
from agola_core.runservice.rules.advance import advance_run, advance_tasks, mark_fetched, take_status, to_fetch
from agola_core.runservice.rules.executor_tasks import new_executor_task
from agola_core.runservice.rules.placement import choose_executor

NOW = datetime(2020, 1, 1, tzinfo=UTC)
GROUP = "/project/p1/branch/main"


def task(name, *depends, conditions=(), **fields):
    return RunConfigTask(
        id=name,
        name=name,
        depends={other: Depend(task_id=other, conditions=list(conditions)) for other in depends},
        steps=[RunStep(command="true")],
        **fields,
    )


def make(*tasks, **fields):
    request = RunCreateRequest(run_config_tasks={item.id: item for item in tasks}, name="r", group=GROUP, **fields)
    bundle = new_run.new_run(request, "run1", 1, NOW)
    return replace(bundle.run, phase=RunPhase.RUNNING), bundle.run_config


def ended(run, config, task_id, phase):
    """Return the run after its executor reported that a task ended."""
    reported = new_executor_task(run, config, config.tasks[task_id], "e1")
    steps = [ExecutorTaskStepStatus(phase=phase) for _ in reported.steps]
    reported = replace(reported, status=replace(reported.status, phase=phase, steps=steps))
    return replace(run, tasks={**run.tasks, task_id: take_status(run.tasks[task_id], reported)})


def test_levels_and_ancestors():
    tasks = with_levels({item.id: item for item in (task("c", "b"), task("a"), task("b", "a"), task("d", "a"))})
    assert {name: item.level for name, item in tasks.items()} == {"a": 0, "b": 1, "c": 2, "d": 1}
    assert ancestors(tasks, "c") == ["a", "b"]


@pytest.mark.parametrize(
    ("tasks", "error"),
    [
        ((task("a", "a"),), "circular dependency between tasks 'a' -> 'a'"),
        ((task("a", "b"), task("b", "c"), task("c", "b")), "circular dependency between tasks 'b' -> 'c' -> 'b'"),
        ((task("a", "none"),), "does not exist"),
        ((task("a"), replace(task("b"), name="a")), "duplicate task name 'a'"),
        ((task("a"), task("b", "a"), task("c", "a", "b")), "both depend on 'a'"),
    ],
)
def test_what_is_no_graph_becomes_a_setup_error(tasks, error):
    assert error in graph_errors({item.id: item for item in tasks})[0]
    _, config = make(*tasks)
    assert new_run.new_run(RunCreateRequest(run_config_tasks=config.tasks, group=GROUP), "r", 1, NOW).run.phase is (
        RunPhase.SETUP_ERROR
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 40), st.randoms(use_true_random=False))
def test_levels_rise_along_every_edge(count, random):
    tasks = {}
    for number in range(count):
        tasks[f"t{number}"] = task(f"t{number}", *{f"t{random.randrange(number)}" for _ in range(2) if number})
    for item in with_levels(tasks).values():
        above = [with_levels(tasks)[parent].level for parent in item.depends]
        assert item.level == (1 + max(above) if above else 0)
    assert not [error for error in graph_errors(tasks) if "circular" in error]


def test_tasks_start_when_their_parents_ended_as_they_should():
    run, config = make(
        task("a"),
        task("ok", "a"),
        task("failed", "a", conditions=[DependCondition.ON_FAILURE]),
        task("either", "a", conditions=[DependCondition.ON_FAILURE, DependCondition.ON_SUCCESS]),
        task("below", "failed", conditions=[DependCondition.ON_SKIPPED]),
    )
    run, ready = advance_tasks(run, config, {})
    assert [item.id for item in ready] == ["a"]
    run = ended(run, config, "a", ExecutorPhase.SUCCESS)
    run, ready = advance_tasks(run, config, {})
    assert run.tasks["failed"].status is TaskStatus.SKIPPED
    assert sorted(item.id for item in ready) == ["below", "either", "ok"]


def test_a_failure_fails_the_run_unless_it_is_tolerated():
    for tolerated, result in ((False, RunResult.FAILED), (True, RunResult.SUCCESS)):
        run, config = make(task("a", ignore_failure=tolerated))
        run = advance_run(ended(run, config, "a", ExecutorPhase.FAILED), config, 0, NOW)
        assert (run.result, run.phase, run.end_time) == (result, RunPhase.FINISHED, NOW)


def test_a_failed_run_cancels_roots_and_waits_for_what_runs():
    run, config = make(task("a"), task("b"), task("c", "a", conditions=[DependCondition.ON_FAILURE]))
    run = advance_run(ended(run, config, "a", ExecutorPhase.FAILED), config, 1, NOW)
    assert (run.result, run.phase) == (RunResult.FAILED, RunPhase.RUNNING)
    run, ready = advance_tasks(run, config, {})
    assert run.tasks["b"].status is TaskStatus.CANCELLED
    assert [item.id for item in ready] == ["c"]


def test_approval_is_waited_for():
    run, config = make(task("a", needs_approval=True))
    run, ready = advance_tasks(run, config, {})
    assert ready == []
    assert run.tasks["a"].waiting_approval
    approved = replace(run, tasks={"a": replace(run.tasks["a"], approved=True, waiting_approval=False)})
    assert [item.id for item in advance_tasks(approved, config, {})[1]] == ["a"]


def test_a_stopped_run_starts_nothing_more():
    run, config = make(task("a"), task("b", "a"))
    run = replace(ended(run, config, "a", ExecutorPhase.SUCCESS), stop=True)
    run = advance_run(run, config, 0, NOW)
    assert run.result is RunResult.STOPPED
    run, ready = advance_tasks(run, config, {})
    assert ready == []
    assert advance_run(run, config, 0, NOW).phase is RunPhase.FINISHED


phases = st.sampled_from(list(ExecutorPhase))


@given(st.lists(phases, max_size=8))
def test_no_order_of_updates_sets_a_task_back(updates):
    run, config = make(task("a"))
    for phase in updates:
        before = run.tasks["a"].status
        run = ended(run, config, "a", phase)
        after = run.tasks["a"].status
        if before.is_finished:
            assert after is before
        elif before is TaskStatus.RUNNING:
            assert after is not TaskStatus.NOT_STARTED


def test_success_is_taken_even_when_running_was_missed():
    run, config = make(task("a"))
    assert ended(run, config, "a", ExecutorPhase.SUCCESS).tasks["a"].status is TaskStatus.SUCCESS
    assert ended(run, config, "a", ExecutorPhase.STOPPED).tasks["a"].status is TaskStatus.STOPPED


def test_a_running_task_that_is_told_cancelled_was_stopped():
    run, config = make(task("a"))
    run = ended(run, config, "a", ExecutorPhase.RUNNING)
    run = ended(run, config, "a", ExecutorPhase.CANCELLED)
    assert run.tasks["a"].status is TaskStatus.STOPPED
    assert ended(run, config, "a", ExecutorPhase.CANCELLED) == run


def test_children_wait_for_their_parents_archives():
    saving = replace(task("a"), steps=[RunStep(command="true"), SaveToWorkspaceStep()])
    run, config = make(saving, task("b", "a"))
    run = ended(run, config, "a", ExecutorPhase.SUCCESS)
    assert advance_tasks(run, config, {})[1] == []
    wanted = to_fetch(run.tasks["a"])
    assert ("archive", 1) in wanted
    for kind, step in wanted:
        run = replace(run, tasks={**run.tasks, "a": mark_fetched(run.tasks["a"], kind, step)})
    assert to_fetch(run.tasks["a"]) == []
    assert [item.id for item in advance_tasks(run, config, {})[1]] == ["b"]
    operations = new_executor_task(run, config, config.tasks["b"], "e1").workspace_operations
    assert [(item.task_id, item.step) for item in operations] == [("a", 1)]


def test_environments_override_each_other():
    run, config = make(task("a", environment={"X": "task", "Y": "task", "Z": "task"}))
    config = replace(config, static_environment={"Y": "static", "Z": "static"}, environment={"Z": "run"})
    executor_task = new_executor_task(run, config, config.tasks["a"], "e1")
    assert executor_task.environment == {"X": "task", "Y": "static", "Z": "run"}
    assert executor_task.cache_prefix == "p1"
    assert new_executor_task(run, replace(config, cache_group="g"), config.tasks["a"], "e1").cache_prefix == "g"


def restart(run, config, **options):
    numbers = itertools.count()
    old = new_run.RunBundle(run, config)
    return new_run.restarted(old, "run2", 2, NOW, lambda: f"new{next(numbers)}", environment={"E": "1"}, **options)


def test_a_restart_keeps_what_succeeded_above_what_did_not():
    run, config = make(task("a"), task("b", "a"), task("c", "b"), task("d", "a"))
    for name, phase in (("a", "success"), ("b", "failed"), ("d", "success")):
        run = ended(run, config, name, ExecutorPhase(phase))
    again = restart(run, config, from_start=False)
    names = {item.name: item for item in again.run_config.tasks.values()}
    assert names["a"].id == "a"
    assert names["d"].id == "d"
    assert {names["b"].id, names["c"].id} == {"new0", "new1"}
    assert list(names["c"].depends) == [names["b"].id]
    assert again.run.tasks["a"].status is TaskStatus.SUCCESS
    assert again.run.tasks[names["b"].id].status is TaskStatus.NOT_STARTED
    assert (again.run.phase, again.run.result, again.run_config.environment) == (
        RunPhase.QUEUED,
        RunResult.UNKNOWN,
        {"E": "1"},
    )
    assert not set(restart(run, config, from_start=True).run.tasks) & set(run.tasks)


@pytest.mark.parametrize(
    ("change", "from_start", "refusal"),
    [
        ({"phase": RunPhase.RUNNING}, True, 'run is not finished, phase: "running"'),
        ({"phase": RunPhase.FINISHED, "result": RunResult.SUCCESS}, False, "has success result"),
        ({"phase": RunPhase.FINISHED, "result": RunResult.SUCCESS}, True, None),
        ({"phase": RunPhase.FINISHED, "result": RunResult.FAILED}, False, None),
    ],
)
def test_which_runs_are_restarted(change, from_start, refusal):
    run, config = make(task("a"))
    found = new_run.restart_refusal(replace(run, **change), config, from_start=from_start)
    assert found == refusal or (refusal and refusal in found)
    assert new_run.restart_refusal(run, replace(config, setup_errors=["x"]), from_start=True) == "run has setup errors"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "run group is empty"),
        ({"group": "x"}, 'run group "x" must be an absolute path'),
        ({"group": GROUP}, "empty run config tasks and setup errors"),
        ({"group": "/project", "run_config_tasks": {}}, "needs a type and an id"),
    ],
)
def test_requests_are_checked_in_agolas_order(fields, message):
    with pytest.raises(BadRequestError, match=message):
        new_run.check_request(RunCreateRequest(**fields))


def test_executors_are_chosen_by_what_they_are():
    def executor(name, **fields):
        return Executor(id=name, archs=["amd64"], last_status_update_time=NOW, **fields)

    plain = task("a")
    privileged = replace(plain, runtime=Runtime(containers=[Container(privileged=True)]))
    arm = replace(plain, runtime=Runtime(arch="arm64"))
    two = [executor("a", allow_privileged_containers=True, active_tasks_limit=1), executor("b")]
    assert choose_executor(plain, two, {}).id == "a"
    assert choose_executor(plain, two, {"a": 1}).id == "b"
    assert choose_executor(privileged, two, {"a": 1}) is None
    assert choose_executor(arm, two, {}) is None
    labelled = [executor("c", labels={"disk": "ssd", "zone": "1"}), executor("d", labels={"disk": "hdd"})]
    assert choose_executor(replace(plain, labels={"disk": "ssd"}), labelled, {}).id == "c"
    assert choose_executor(replace(plain, labels={"disk": "ssd", "zone": "2"}), labelled, {}) is None


class Counting(dict):
    """Tasks that count how often one is looked at."""

    looks = 0

    def __getitem__(self, key):
        self.looks += 1
        return super().__getitem__(key)


def test_a_chain_that_is_written_in_reverse_is_checked_in_as_many_looks_as_it_has_parts():
    size = 4000
    ids = [f"t{number}" for number in range(size)]
    chain = [task(name, *ids[number + 1 : number + 2]) for number, name in enumerate(ids)]
    tasks = Counting((item.id, item) for item in chain)
    assert graph_errors(tasks) == []
    assert with_levels(tasks)["t0"].level == size - 1
    assert tasks.looks < 20 * size


def test_a_graph_with_everything_wrong_gets_a_short_answer():
    wide = [f"t{number}" for number in range(300)]
    tasks = {name: task(name, *wide[:number]) for number, name in enumerate(wide)}  # 4.5 million pairs
    assert len(graph_errors(tasks)) == 100
    assert len(graph_errors({str(number): task("same") for number in range(1000)})) == 100
    many = graph_errors({str(number): task(str(number)) for number in range(10_001)})
    assert many == ["a run has at most 10000 tasks, not 10001"]
