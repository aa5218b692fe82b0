"""Runs under arbitrary orders of everything that happens to them, beside a model of the rules."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, precondition, rule
from msgspec.structs import replace

import agola_core
from agola_core import Options
from agola_core.errors import AgolaError, BadRequestError, NotFoundError
from agola_core.runservice.archive.projection import DATA_TYPES
from agola_core.runservice.inprocess import InProcessDirectory
from agola_core.runservice.model.options import ServiceOptions
from agola_core.runservice.model.requests import RunCreateRequest, RunQuery
from agola_core.runservice.model.types import (
    Depend,
    DependCondition,
    Executor,
    ExecutorPhase,
    ExecutorTaskStepStatus,
    RunConfigTask,
    RunPhase,
    RunResult,
    RunStep,
    TaskStatus,
)
from agola_core.runservice.service import RunService
from agola_core.runtime import faultpoints
from agola_core.runtime.faultpoints import InjectedFaultError

GROUPS = ("/project/p/branch/a", "/project/p/branch/b", "/user/u/branch/a")
ALWAYS = [DependCondition.ON_SUCCESS, DependCondition.ON_FAILURE, DependCondition.ON_SKIPPED]
SHAPES = (
    {"a": {}},
    {"a": {}, "b": {"a": []}},
    {"a": {"ignore_failure": True}, "b": {"a": [DependCondition.ON_FAILURE]}, "c": {"b": ALWAYS}},
    {"a": {}, "b": {}, "c": {"a": [], "b": []}},
    {"a": {"needs_approval": True}, "b": {"a": ALWAYS}},
    {"a": {"skip": True}, "b": {"a": [DependCondition.ON_SKIPPED]}},
    {"a": {"max_attempts": 2}, "b": {"a": []}},
)
EXECUTORS = ("e1", "e2")
_OPTIONS = {"ignore_failure", "needs_approval", "skip", "max_attempts"}
_RANK = {TaskStatus.NOT_STARTED: 0, TaskStatus.RUNNING: 1}


class Played:
    """An executor that does nothing by itself."""

    def submit(self, task):
        pass

    def open_log(self, task_id, step, *, follow, offset=0):
        yield f"{task_id} {step}".encode()[offset:]

    def open_times(self, task_id, step, *, offset=0):
        raise NotFoundError("no times")

    def open_archive(self, task_id, step, *, offset=0):
        yield b""


class Model:
    """What is known of a run beside the service."""

    def __init__(self, run, config):
        self.run = run
        self.config = config
        self.logs = set()


class RunServiceMachine(RuleBasedStateMachine):
    """Everything at once, with the service's threads replaced by `run_pending`."""

    runs = Bundle("runs")

    def __init__(self):
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.directory = InProcessDirectory()
        for name in EXECUTORS:
            self.directory.add(name, Played())
        self.dm = agola_core.open(
            Path(self.root.name, "store"), data_types=DATA_TYPES, options=Options(background=False)
        )
        self.service = None
        self.known = {}
        self.deleted = set()
        self.counters = {}
        self.reports = []
        self.names = 0
        self.open()

    def open(self):
        if self.service is not None:
            self.service.close()
        self.service = RunService(
            self.dm,
            Path(self.root.name, "readdb.db"),
            self.directory,
            ServiceOptions(executor_ttl=3600.0, fetch_patience=0.0),
            new_id=self.new_id,
        )
        self.register()

    def teardown(self):
        try:
            self.finish_everything()
        finally:
            self.service.close()
            self.dm.close()
            self.root.cleanup()

    def new_id(self):
        self.names += 1
        return f"t{self.names}"

    def register(self):
        for name in EXECUTORS:
            self.service.executor_side.take_executor_status(Executor(id=name, active_tasks_limit=3))

    # What happens

    @rule(target=runs, shape=st.sampled_from(SHAPES), group=st.sampled_from(GROUPS))
    def create(self, shape, group):
        ids = {name: self.new_id() for name in shape}
        tasks = {}
        for name, said in shape.items():
            depends = {ids[up]: Depend(ids[up], when) for up, when in said.items() if up not in _OPTIONS}
            fields = {key: value for key, value in said.items() if key in _OPTIONS}
            tasks[ids[name]] = RunConfigTask(
                id=ids[name], name=name, depends=depends, steps=[RunStep(command="true")], **fields
            )
        return self.made(self.service.create_run(RunCreateRequest(run_config_tasks=tasks, group=group)))

    @rule(target=runs, run_id=runs, from_start=st.booleans())
    def restart(self, run_id, from_start):
        try:
            return self.made(self.service.create_run(RunCreateRequest(run_id=run_id, from_start=from_start)))
        except BadRequestError:
            run = self.service.find_run(run_id)
            assert run is None or not run.phase.is_finished or not from_start
            return multiple()

    @rule(run_id=runs)
    def delete(self, run_id):
        before = self.service.find_run(run_id)
        try:
            self.service.delete_run(run_id)
        except NotFoundError:
            assert before is None
        except BadRequestError:
            assert before is not None
            assert not before.phase.is_finished
        else:
            self.deleted.add(run_id)

    @rule(run_id=runs, action=st.sampled_from(["stop", "cancel", "approve"]))
    def act(self, run_id, action):
        run = self.service.find_run(run_id)
        try:
            if action == "stop":
                self.service.stop_run(run_id)
            elif action == "cancel":
                self.service.change_run_phase(run_id, RunPhase.CANCELLED)
            else:
                for task_id in run.tasks if run else ():
                    self.service.approve_task(run_id, task_id)
        except AgolaError:
            return
        if action == "stop":
            assert run.phase is RunPhase.RUNNING
        elif action == "cancel":
            assert run.phase is RunPhase.QUEUED

    @rule(data=st.data(), phase=st.sampled_from(list(ExecutorPhase)))
    def report(self, data, phase):
        held = [task for name in EXECUTORS for task in self.service.executor_side.tasks(name)]
        if held:
            self.send(data.draw(st.sampled_from(held)), phase)

    @precondition(lambda self: self.reports)
    @rule(data=st.data(), name=st.sampled_from(EXECUTORS))
    def repeat_a_report(self, data, name):
        """An old report comes once more, perhaps from the wrong executor."""
        reported = data.draw(st.sampled_from(self.reports))
        try:
            before = self.service.executor_side.task(reported.id)
        except NotFoundError:
            return
        self.service.executor_side.take_task_status(name, reported)
        after = self.service.executor_side.task(reported.id)
        if name != before.status.executor_id or reported.attempt != before.attempt or before.status.phase.is_finished:
            assert after == before

    @rule(name=st.sampled_from(EXECUTORS))
    def executor_is_deleted_and_comes_back(self, name):
        self.service.delete_executor(name)
        self.service.run_pending()
        self.register()

    @rule()
    def go_on(self):
        self.service.run_pending()

    @rule()
    def crash(self):
        """What is in memory is lost; the store is not."""
        self.open()

    @rule(data=st.data(), passes=st.integers(1, 12))
    def crash_at_a_fault_point(self, data, passes):
        left = passes

        def hook(_):
            nonlocal left
            left -= 1
            if left <= 0:
                raise InjectedFaultError("down")

        known = list(self.known)
        with faultpoints.arm(hook):
            try:
                match data.draw(st.sampled_from(["create", "restart", "delete", "go on"])):
                    case "create":
                        task = RunConfigTask(id=self.new_id(), name="x", steps=[RunStep(command="true")])
                        self.service.create_run(RunCreateRequest(run_config_tasks={task.id: task}, group=GROUPS[0]))
                    case "restart" if known:
                        self.service.create_run(RunCreateRequest(run_id=data.draw(st.sampled_from(known))))
                    case "delete" if known:
                        self.service.delete_run(data.draw(st.sampled_from(known)))
                    case _:
                        self.service.run_pending()
            except AgolaError:
                pass
        self.open()
        self.take_over()

    # What must hold

    @invariant()
    def runs_are_as_the_model_says(self):
        seen = {}
        for run in self.everything():
            assert run.id not in seen, "listed twice"
            seen[run.id] = run
        assert set(seen) == set(self.known) - self.deleted
        for run_id, run in seen.items():
            known = self.known[run_id]
            self.check_change(known, run)
            known.run = run
        by_group = [run.group for run in seen.values() if run.phase is RunPhase.RUNNING]
        assert len(by_group) == len(set(by_group)), "two runs of a group at once"

    def check_change(self, known, run):
        before = known.run
        assert (before.counter, before.group) == (run.counter, run.group)
        if before.phase.is_finished:
            assert (before.phase, before.result) == (run.phase, run.result)
        if before.result.is_set:
            assert before.result is run.result
        for task_id, task in run.tasks.items():
            was = before.tasks[task_id]
            assert task.attempt >= was.attempt
            if task.attempt == was.attempt and task.reason == was.reason:
                assert _RANK.get(task.status, 2) >= _RANK.get(was.status, 2)
            if was.status.is_finished:
                assert task.status is was.status
            if (
                task.steps[0].log_phase == "finished"
                and not task.steps[0].log_lost
                and task.steps[0].phase != "notstarted"
            ):
                content = b"".join(self.service.open_log(run.id, task_id, 0))
                assert content == f"{task_id} 0".encode()

    @invariant()
    def no_executor_has_more_than_it_takes(self):
        for name in EXECUTORS:
            assert sum(not task.status.phase.is_finished for task in self.service.executor_side.tasks(name)) <= 3

    # Helpers

    def made(self, bundle):
        run = bundle.run
        root = run.group.split("/")[2]
        self.counters[root] = self.counters.get(root, 0) + 1
        assert run.counter == self.counters[root]
        assert run.id not in self.known
        self.known[run.id] = Model(run, bundle.run_config)
        return run.id

    def take_over(self):
        """Learn what a crash left: at most one run more, with the next number, or one less."""
        now = {run.id: run for run in self.everything()}
        for run_id in now.keys() - self.known.keys():
            self.made(self.service.get_run(run_id))
        self.deleted |= self.known.keys() - now.keys()

    def everything(self):
        found = self.service.list_runs(RunQuery(limit=1000, ascending=True))
        assert [run.id for run in found] == sorted(run.id for run in found)
        return found

    def send(self, task, phase):
        steps = [ExecutorTaskStepStatus(phase=phase) for _ in task.steps]
        setup = ExecutorTaskStepStatus(phase=phase)
        reported = replace(task, status=replace(task.status, phase=phase, steps=steps, setup_step=setup))
        self.reports.append(reported)
        self.service.executor_side.take_task_status(task.status.executor_id, reported)

    def finish_everything(self):
        """Whatever happened, all runs end as soon as their executors say so, and leave nothing behind."""
        for _ in range(100):
            self.service._sweeps.sweep()
            self.service.run_pending()
            for name in EXECUTORS:
                for task in self.service.executor_side.tasks(name):
                    if not task.status.phase.is_finished:
                        self.send(task, ExecutorPhase.STOPPED if task.stop else ExecutorPhase.SUCCESS)
            active = self.service.active_runs()
            for run in active:
                for task_id, task in run.tasks.items():
                    if task.waiting_approval:
                        self.service.approve_task(run.id, task_id)
            if not active:
                break
        self.service.run_pending()
        assert self.service.active_runs() == []
        self.runs_are_as_the_model_says()
        for run in self.everything():
            self.check_end(self.known[run.id], run)
            self.service.delete_run(run.id)
        assert not [task for name in EXECUTORS for task in self.service.executor_side.tasks(name)]
        assert [info.path for info in self.dm.storage.list("logs/")] == []

    def check_end(self, known, run):
        assert run.archived
        statuses = {known.config.tasks[task_id].name: task.status for task_id, task in run.tasks.items()}
        assert all(status.is_finished for status in statuses.values()) or run.phase is RunPhase.CANCELLED
        if run.phase is RunPhase.FINISHED:
            failed = any(
                task.status is TaskStatus.FAILED and not known.config.tasks[task_id].ignore_failure
                for task_id, task in run.tasks.items()
            )
            if failed:
                assert run.result in {RunResult.FAILED, RunResult.STOPPED}
            elif not run.stop:
                assert run.result in {RunResult.SUCCESS, RunResult.STOPPED}
        for task_id, task in run.tasks.items():
            if task.status in {TaskStatus.SUCCESS, TaskStatus.FAILED}:
                for up, depend in (known.config.tasks[task_id].depends or {}).items():
                    status = run.tasks[up].status
                    conditions = depend.conditions or [DependCondition.ON_SUCCESS]
                    told = {
                        DependCondition.ON_SUCCESS: TaskStatus.SUCCESS,
                        DependCondition.ON_FAILURE: TaskStatus.FAILED,
                    }
                    assert status in {told.get(item, TaskStatus.SKIPPED) for item in conditions}


TestRunService = RunServiceMachine.TestCase
TestRunService.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)
