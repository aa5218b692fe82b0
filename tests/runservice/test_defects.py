"""What Agola 0.2's run service did wrong, and this one must not: each defect by its name in the notes on it."""

import os
import threading
import time

import pytest
from msgspec.structs import replace

from agola_core.errors import BadRequestError, NotFoundError, UnavailableError
from agola_core.runservice.model.line_times import MAX_BYTES
from agola_core.runservice.model.requests import RunCreateRequest, RunQuery
from agola_core.runservice.model.types import (
    Executor,
    ExecutorPhase,
    ExecutorTaskStepStatus,
    RunPhase,
    RunResult,
    RunStep,
    Runtime,
    SaveToWorkspaceStep,
    TaskStatus,
)
from agola_core.runservice.scheduling import executor_reports
from agola_core.runservice.state import run_keys
from agola_core.runtime import faultpoints
from tests.support.runs import SECONDS, WRITTEN, PlayedExecutor, archived, request, settled, task


class Hanging(PlayedExecutor):
    """An executor that answers nothing until it is let go."""

    def __init__(self, *arguments, **fields):
        self.let_go = threading.Event()
        self.asked = threading.Event()
        super().__init__(*arguments, **fields)

    def submit(self, task):
        super().submit(task)
        self.asked.set()
        assert self.let_go.wait(SECONDS)

    def open_log(self, task_id, step, *, follow, offset=0):
        assert self.let_go.wait(SECONDS)
        raise UnavailableError("hung")


def test_f1_success_counts_although_running_was_never_said(service, directory):
    executor = PlayedExecutor(service, directory)
    run = service.create_run(request(task("a"))).run
    executor.end("a", ExecutorPhase.SUCCESS)
    assert archived(service, run.id).result is RunResult.SUCCESS


def test_f2_a_cancelled_run_is_archived(open_service):
    service = open_service(start_queued=False)
    run = service.create_run(request(task("a"))).run
    service.change_run_phase(run.id, RunPhase.CANCELLED)
    run = archived(service, run.id)
    assert (run.phase, run.result, run.archived) == (RunPhase.CANCELLED, RunResult.UNKNOWN, True)


def test_f3_a_log_that_nobody_has_any_more_is_said_to_be_lost(service, directory):
    class Forgetful(PlayedExecutor):
        def open_log(self, task_id, step, *, follow, offset=0):
            if step is None:
                raise NotFoundError("no log")
            return super().open_log(task_id, step, follow=follow, offset=offset)

    executor = Forgetful(service, directory)
    run = service.create_run(request(task("a"))).run
    executor.end("a")
    run = archived(service, run.id)
    assert run.tasks["a"].setup_step.log_lost
    assert not run.tasks["a"].steps[0].log_lost
    with pytest.raises(NotFoundError, match="was lost"):
        service.open_log(run.id, "a", None)
    assert b"".join(service.open_log(run.id, "a", 0)) == b"log 0 of a"


def test_f3_a_log_without_end_is_lost_and_not_stored_without_end(open_service, directory, dm):
    class Endless(PlayedExecutor):
        def open_log(self, task_id, step, *, follow, offset=0):
            return iter(lambda: b"x" * 1000, b"")

    service = open_service(max_log_bytes=100_000)
    executor = Endless(service, directory)
    run = service.create_run(request(task("a"))).run
    executor.end("a")
    run = archived(service, run.id)
    assert run.tasks["a"].steps[0].log_lost
    assert not [item for item in dm.storage.list() if item.path.endswith(".log")]


def test_f3_a_failed_fetch_is_made_again_from_where_it_broke_off(open_service, directory):
    asked = []

    class Breaking(PlayedExecutor):
        def open_log(self, task_id, step, *, follow, offset=0):
            asked.append((step, offset))
            whole = b"0123456789"
            yield whole[offset : offset + 4]
            if offset + 4 < len(whole):
                raise UnavailableError("broke off")

    service = open_service()
    executor = Breaking(service, directory)
    run = service.create_run(request(task("a"))).run
    executor.end("a")
    archived(service, run.id)
    assert b"".join(service.open_log(run.id, "a", 0)) == b"0123456789"
    assert [offset for step, offset in asked if step == 0] == [0, 4, 8]


def test_a_log_that_goes_into_storage_while_its_executor_is_asked_is_found_there(service, directory):
    class Gone(PlayedExecutor):
        """Ends the task, and forgets it, before it answers the test."""

        def open_log(self, task_id, step, *, follow, offset=0):
            if threading.current_thread() is threading.main_thread():
                self.end(task_id)
                archived(service, run.id)
                raise NotFoundError("no log")
            return super().open_log(task_id, step, follow=follow, offset=offset)

    executor = Gone(service, directory)
    run = service.create_run(request(task("a"))).run
    executor.end("a", ExecutorPhase.RUNNING)
    settled(service, run.id, lambda now: now.tasks["a"].status is TaskStatus.RUNNING)
    assert b"".join(service.open_log(run.id, "a", 0)) == b"log 0 of a"


def test_f4_an_executor_keeps_its_task_until_the_log_is_durable(service, directory, dm):
    executor = PlayedExecutor(service, directory)
    held = []

    def look(name):
        if name == "fetch.before-log":
            held.append([item.id for item in executor.side.tasks("e1")])

    with faultpoints.arm(look):
        run = service.create_run(request(task("a"))).run
        executor.end("a")
        archived(service, run.id)
    assert held == [["a"], ["a"]]
    assert [info.path for info in dm.storage.list("logs/a/data/")] == [
        "logs/a/data/setup.log",
        "logs/a/data/steps/0.log",
        "logs/a/data/steps/0.log.times",
    ]
    assert [info.path for info in dm.storage.list("workspacearchives/")] == []  # it saves none, so none is referred to
    assert executor.side.tasks("e1") == []


@pytest.mark.parametrize("hits", [1, 2])
def test_times_that_were_not_stored_with_their_log_are_stored_later(open_service, directory, dm, hits):
    missed = []

    def miss(name):
        if name == "fetch.before-times" and len(missed) < hits:
            missed.append([info.path for info in dm.storage.list("logs/a/data/")])
            raise UnavailableError("the storage is away")

    service = open_service(sweep_interval=0.1)
    executor = PlayedExecutor(service, directory)
    with faultpoints.arm(miss):
        run = service.create_run(request(task("a"))).run
        executor.end("a")
        archived(service, run.id)
    assert missed == [["logs/a/data/setup.log", "logs/a/data/steps/0.log"]] * hits  # a log without times is whole
    times = service.log_times(run.id, "a", 0)
    times.reach(1)
    assert (times.at(1), times.at(10), times.at(11)) == (WRITTEN, WRITTEN, None)
    service.delete_run(run.id)
    assert list(dm.storage.list("logs/")) == []


def test_a_log_whose_executor_knows_no_times_or_damaged_ones_has_none(service, directory, dm):
    class Old(PlayedExecutor):
        def open_times(self, task_id, step, *, offset=0):
            if task_id == "a":
                raise NotFoundError("no such path")
            yield b"agolalt1" + b"\xff" * 1000

    executor = Old(service, directory)
    run = service.create_run(request(task("a"), task("b"))).run
    for name in ("a", "b"):
        executor.end(name)
    archived(service, run.id)
    assert not [info for info in dm.storage.list("logs/") if info.path.endswith(".times")]
    for name in ("a", "b"):
        times = service.log_times(run.id, name, 0)
        times.reach(1)
        assert times.at(1) is None
        assert b"".join(service.open_log(run.id, name, 0)) == f"log 0 of {name}".encode()


def test_times_without_end_of_a_growing_log_are_not_read_to_their_end(open_service, directory):
    """A step can make the file of its times as large as it likes, without a byte of disk."""
    sent = []

    class Endless(PlayedExecutor):
        def open_times(self, task_id, step, *, offset=0):
            while len(sent) < 1000:  # a gigabyte ends the test
                sent.append(offset)
                yield bytes(1 << 20)

    service = open_service()
    executor = Endless(service, directory)
    run = service.create_run(request(task("a"))).run
    executor.wait_task("a")
    assert b"".join(service.open_log(run.id, "a", 0, follow=True)) == b"log 0 of a"  # the service knows where it runs
    times = service.log_times(run.id, "a", 0)
    for _ in range(3):
        times.reach(1)
    assert times.at(1) is None
    assert len(sent) == MAX_BYTES // (1 << 20) + 1  # once, and not for each piece of the log


def test_f5_a_silent_executors_tasks_fail_when_its_lease_ends(open_service, directory):
    service = open_service(executor_ttl=1.0, sweep_interval=0.1, fetch_patience=0.0)
    executor = PlayedExecutor(service, directory)
    run = service.create_run(request(task("a"))).run
    executor.wait_task("a")
    run = settled(service, run.id, lambda run: run.phase.is_finished)
    assert (run.result, run.tasks["a"].reason) == (RunResult.FAILED, "executor lost")


def test_f5_heartbeats_renew_an_executors_lease_only_when_that_is_due(service, monkeypatch):
    side, coordinator = service.executor_side, service.datamanager.coordinator
    now, renewed, keep_alive = [1000.0], [], coordinator.keep_alive
    monkeypatch.setattr(executor_reports, "boot_clock", lambda: now[0])
    monkeypatch.setattr(coordinator, "keep_alive", lambda lease: renewed.append(now[0]) or keep_alive(lease))
    side.take_executor_status(Executor(id="e1"))
    while "e1" not in side._mirror.alive:
        with side._mirror.condition:
            side._mirror.condition.wait(0.1)
    for now[0] in (1002.0, 1004.0, 1006.0, 1007.0, 1009.0, 1012.0):  # its time is 60 s
        side.take_executor_status(Executor(id="e1"))
    coordinator.revoke_lease(side._mirror.alive["e1"])  # as if it had ended while the process slept
    now[0] = 2000.0
    side.take_executor_status(Executor(id="e1"))
    assert renewed[:3] == [1002.0, 1007.0, 1012.0]
    assert coordinator.list(run_keys.ALIVE).items[0].lease


def test_f5_a_registration_forgets_only_siblings_that_are_gone(service):
    side = service.executor_side

    def report(name, siblings):
        side.take_executor_status(Executor(id=name, dynamic=True, executor_group="g", siblings_executors=siblings))

    report("one", ["one"])
    report("two", ["two"])  # it does not know of the other yet: both have just come
    assert [item.id for item in service.executors()] == ["one", "two"]


def test_f6_an_executor_that_hangs_stalls_no_other(service, directory):
    hanging = Hanging(service, directory, "e1", labels={"kind": "slow"})
    quick = PlayedExecutor(service, directory, "e2", labels={"kind": "quick"})
    stuck = service.create_run(request(task("slow", labels={"kind": "slow"}), group="/project/s/branch/b")).run
    assert hanging.asked.wait(SECONDS)
    hanging.end("slow")  # it reports, but its log cannot be read
    for number in range(3):
        run = service.create_run(request(task(f"q{number}", labels={"kind": "quick"}), group=f"/project/q{number}")).run
        quick.end(f"q{number}")
        archived(service, run.id)
    assert service.find_run(stuck.id).phase is RunPhase.FINISHED
    assert not service.find_run(stuck.id).archived
    hanging.let_go.set()


def test_f6_a_task_that_fits_nowhere_blocks_no_sibling(service, directory):
    executor = PlayedExecutor(service, directory)
    arm = replace(task("a"), runtime=Runtime(arch="arm64"))
    run = service.create_run(request(arm, task("b"))).run
    executor.end("b")
    run = settled(service, run.id, lambda run: run.tasks["b"].status.is_finished)
    assert run.tasks["a"].status is TaskStatus.NOT_STARTED
    late = PlayedExecutor(service, directory, "e2", archs=["arm64"])
    late.end("a")
    assert archived(service, run.id).result is RunResult.SUCCESS


def test_f7_late_and_foreign_reports_set_nothing_back(service, directory):
    executor = PlayedExecutor(service, directory)
    service.create_run(request(replace(task("a"), steps=[RunStep(command="1"), RunStep(command="2")])))
    fresh = executor.wait_task("a")

    def reported(phase, *steps):
        states = [ExecutorTaskStepStatus(phase=step) for step in steps]
        return replace(fresh, status=replace(fresh.status, phase=phase, steps=states))

    none, on, done = ExecutorPhase.NOT_STARTED, ExecutorPhase.RUNNING, ExecutorPhase.SUCCESS
    executor.side.take_task_status("e1", reported(on, done, on))
    known = executor.side.task("a")
    for stale in (reported(none, none, none), reported(on, on, none), reported(on, done, none)):
        executor.side.take_task_status("e1", stale)
    executor.side.take_task_status("e2", reported(done, done, done))
    executor.side.take_task_status("e1", replace(reported(done, done, done), attempt=7))
    assert executor.side.task("a") == known


def test_f8_a_creation_that_fails_leaves_nothing_and_takes_no_number(service):
    def fail(name):
        if name == "create.before-commit":
            raise UnavailableError("no coordinator")

    with faultpoints.arm(fail), pytest.raises(UnavailableError):
        service.create_run(request(task("a")))
    assert service.list_runs(RunQuery()) == []
    assert service.create_run(request(task("a"))).run.counter == 1


def test_f9_a_set_up_log_is_its_own_and_steps_are_checked(service, directory):
    executor = PlayedExecutor(service, directory)
    run = service.create_run(request(replace(task("a"), steps=[]), task("b"))).run
    executor.end("a")
    executor.end("b")
    archived(service, run.id)
    assert b"".join(service.open_log(run.id, "a", None)) == b"log None of a"
    for step in (-1, 1):
        with pytest.raises(NotFoundError, match="no such step"):
            service.open_log(run.id, "b", step)


def test_f9_run_events_do_not_pile_up(open_service):
    service = open_service(keep_events=4, start_queued=False)
    for number in range(6):
        service.create_run(request(task(f"t{number}")))
    while not service._sweeps.clean():  # its own loop may be at it
        pass
    with service.watch_events(after="0000000000000-0000000000000") as feed:
        first = feed.next(SECONDS)
    assert first is not None
    assert len(list(service.datamanager.coordinator.list("rs/events/").items)) == 4


def test_f10_a_prefix_finds_the_newest_cache(service, dm):
    for age, key in enumerate(("p-a", "p-c", "p-b")):
        assert service.artifacts.put_cache(key, [key.encode()])
        written = time.time() - 100 * age
        os.utime(f"{dm.storage.root}/data/caches/{key}.tar", (written, written))
    assert b"".join(service.artifacts.open_cache("p-", prefix=True)) == b"p-a"
    assert not service.artifacts.put_cache("p-a", [b"other"])
    assert b"".join(service.artifacts.open_cache("p-a", prefix=False)) == b"p-a"
    with pytest.raises(BadRequestError, match="has not the 9 bytes"):
        service.artifacts.put_cache("p-d", [b"short"], 9)
    assert not service.artifacts.cache_exists("p-d")
    assert len(list(dm.storage.list("caches/"))) == 3


def test_caches_go_by_age_alone(open_service, dm):
    service = open_service()
    service.artifacts.put_cache("old", [b"x"])
    while not service._sweeps.clean():  # its own loop may be at it
        pass
    assert service.artifacts.cache_exists("old")
    expiring = open_service(cache_expiry=0.0)
    while expiring.artifacts.cache_exists("old"):  # a clean-up of the services' own may be under way
        while not expiring._sweeps.clean():
            pass


def test_projects_of_one_cache_group_share_their_caches(service, directory):
    executor = PlayedExecutor(service, directory)
    prefixes = []
    for number, (group, cache_group) in enumerate(
        (("/project/p/branch/b", ""), ("/project/q/branch/b", "shared"), ("/user/u/branch/b", "shared"))
    ):
        name = f"t{number}"
        service.create_run(replace(request(task(name), group=group), cache_group=cache_group))
        prefixes.append(executor.wait_task(name).cache_prefix)
    assert prefixes == ["p", "shared", "shared"]


def test_f12_no_executor_gets_more_than_it_takes(service, directory):
    executors = [PlayedExecutor(service, directory, f"e{number}", active_tasks_limit=2) for number in range(3)]
    runs = [
        service.create_run(request(task(f"a{number}"), task(f"b{number}"), group=f"/project/p/branch/{number}")).run
        for number in range(12)
    ]
    ended = set()
    while len(ended) < 24:
        for executor in executors:
            held = [item for item in executor.side.tasks(executor.id) if not item.status.phase.is_finished]
            assert len(held) <= 2
            for item in list(executor.submitted):
                if item.id not in ended:
                    ended.add(item.id)
                    executor.end(item.id)
    for run in runs:
        assert archived(service, run.id).result is RunResult.SUCCESS


def test_f12_nothing_starts_after_a_stop(service, directory):
    executor = PlayedExecutor(service, directory)
    run = service.create_run(request(task("a"), task("b", "a"))).run
    executor.wait_task("a")
    service.stop_run(run.id)
    executor.end("a", ExecutorPhase.STOPPED)
    run = archived(service, run.id)
    assert run.result is RunResult.STOPPED
    assert (run.tasks["a"].status, run.tasks["b"].status) == (TaskStatus.STOPPED, TaskStatus.SKIPPED)
    assert {item.id for item in executor.submitted} == {"a"}


def test_archives_are_there_before_those_who_need_them_start(service, directory, dm):
    executor = PlayedExecutor(service, directory)
    saving = replace(task("a"), steps=[SaveToWorkspaceStep()])
    run = service.create_run(request(saving, task("b", "a"))).run
    executor.end("a")
    operations = executor.wait_task("b").workspace_operations
    assert [(item.task_id, item.step) for item in operations] == [("a", 0)]
    assert dm.storage.read("workspacearchives/a/data/0.tar") == b"archive 0 of a"
    assert [info.path for info in dm.storage.list("workspacearchives/a/runs/")] == [
        f"workspacearchives/a/runs/{run.id}"
    ]


def test_a_restart_of_a_restart_keeps_only_what_it_needs(service, directory, dm):
    executor = PlayedExecutor(service, directory)
    run = service.create_run(request(task("a"), task("b", "a"))).run
    executor.end("a")
    executor.end("b", ExecutorPhase.FAILED)
    archived(service, run.id)
    first = service.create_run(RunCreateRequest(run_id=run.id, environment={"E": "1"})).run
    name = next(item for item in first.tasks if item != "a")
    assert executor.wait_task(name).environment == {"E": "1"}
    executor.end(name, ExecutorPhase.FAILED)
    archived(service, first.id)
    second = service.create_run(RunCreateRequest(run_id=first.id)).run
    assert set(second.tasks) & set(first.tasks) == {"a"}
    references = [info.path for info in dm.storage.list("logs/a/runs/")]
    assert references == [f"logs/a/runs/{item}" for item in (run.id, first.id, second.id)]
