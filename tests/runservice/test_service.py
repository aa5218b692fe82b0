"""The run service as its clients and executors see it; the tests play the executor."""

import threading
from datetime import timedelta

import pytest
from msgspec.structs import replace

from agola_cli.runs.follow import stop_run
from agola_core.errors import BadRequestError, ClosedError, ConflictError, NotFoundError
from agola_core.runservice.model.options import RetentionRule
from agola_core.runservice.model.requests import RunCreateRequest, RunQuery
from agola_core.runservice.model.types import ExecutorPhase, RunPhase, RunResult, TaskStatus
from agola_core.runservice.rules.retention import expired
from agola_core.runservice.scheduling.run_ownership import first_of
from agola_core.runtime import faultpoints
from tests.support.runs import SECONDS, PlayedExecutor, archived, request, settled, task


def test_a_run_goes_from_its_creation_to_its_archive(service, directory):
    executor = PlayedExecutor(service, directory)
    run = service.create_run(request(task("a"), task("b", "a"))).run
    assert (run.phase, run.counter) == (RunPhase.QUEUED, 1)
    executor.end("a")
    executor.end("b")
    run = archived(service, run.id)
    assert (run.phase, run.result, run.archived) == (RunPhase.FINISHED, RunResult.SUCCESS, True)
    assert b"".join(service.open_log(run.id, "b", 0)) == b"log 0 of b"
    assert b"".join(service.open_log(run.id, "b", None)) == b"log None of b"
    assert executor.side.tasks("e1") == []
    with pytest.raises(NotFoundError):
        executor.side.task("a")


def test_counters_have_no_gaps_and_no_repeats_under_concurrency(service):
    made = []

    def create(number):
        for _ in range(5):
            made.append(service.create_run(request(group=f"/project/{number % 2}/branch/b{number}")).run)  # noqa: PERF401

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for root in ("0", "1"):
        assert sorted(run.counter for run in made if run.group.split("/")[2] == root) == list(range(1, 21))
    assert len({run.id for run in made}) == 40


def test_a_moved_change_group_refuses_creations_and_actions(open_service):
    service = open_service(start_queued=False)
    token = service.change_groups_token(["g", "other"])
    run = service.create_run(request(task("a"), change_groups_update_tokens=token)).run
    with pytest.raises(ConflictError, match="change group"):
        service.create_run(request(task("b"), change_groups_update_tokens=token))
    with pytest.raises(ConflictError, match="change group"):
        service.change_run_phase(run.id, RunPhase.CANCELLED, token)
    fresh = service.change_groups_token(["g"])
    service.set_annotations(run.id, "a", {"x": "y"}, fresh)
    service.set_annotations(run.id, "a", {"x": "y"}, fresh)  # Agola's rule: what changes nothing looks at no token
    with pytest.raises(ConflictError, match="change group"):
        service.set_annotations(run.id, "a", {"x": "z"}, fresh)
    with pytest.raises(BadRequestError, match="not a change groups token"):
        service.change_run_phase("unknown", RunPhase.CANCELLED, "nonsense")
    assert service.get_run(run.id).run.tasks["a"].annotations == {"x": "y"}


def test_a_refused_creation_takes_no_number(service):
    token = service.change_groups_token(["g"])
    service.create_run(request(task("a"), change_groups_update_tokens=token))
    with pytest.raises(ConflictError):
        service.create_run(request(task("b"), change_groups_update_tokens=token))
    assert service.create_run(request(task("c"))).run.counter == 2


def test_events_tell_every_change_and_are_gone_on_with(service, directory):
    executor = PlayedExecutor(service, directory)
    with service.watch_events() as feed:
        run = service.create_run(request(task("a"))).run
        executor.end("a", ExecutorPhase.FAILED)
        events = [feed.next(SECONDS)]
        while not events[-1].phase.is_finished:
            events.append(feed.next(SECONDS))
    told = [(event.phase.value, event.result.value) for event in events]
    assert told[:2] == [("queued", "unknown"), ("running", "unknown")]
    assert told[2:] in ([("finished", "failed")], [("running", "failed"), ("finished", "failed")])
    assert {event.run_id for event in events} == {run.id}
    sequences = [event.sequence for event in events]
    assert sequences == sorted(set(sequences))
    with service.watch_events(after=sequences[0]) as feed:
        assert feed.next(SECONDS) == events[1]
    with pytest.raises(BadRequestError):
        service.watch_events(after="yesterday")


def test_a_feed_ends_with_the_service(open_service):
    service = open_service()
    feed = service.watch_events()
    ended = threading.Event()

    def follow():
        with pytest.raises(ClosedError):
            feed.next()
        ended.set()

    thread = threading.Thread(target=follow)
    thread.start()
    service.close()
    thread.join(SECONDS)
    assert ended.is_set()


def test_lists_filter_order_and_merge_active_and_archived_runs(open_service):
    service = open_service(start_queued=False)
    groups = ["/project/p/branch/main", "/project/p/branch/main", "/project/p/branch/mainly", "/project/px/tag/v1"]
    runs = [service.create_run(request(task(f"t{number}"), group=group)).run for number, group in enumerate(groups)]
    service.change_run_phase(runs[0].id, RunPhase.CANCELLED)
    broken = service.create_run(replace(request(group="/project/p/pr/1"), setup_errors=["x"])).run
    assert service.wait_archived([runs[0].id, broken.id], SECONDS)

    def ids(**query):
        return [run.id for run in service.list_runs(RunQuery(**query))]

    everything = [run.id for run in (*runs, broken)]
    assert ids() == everything[::-1]
    assert ids(ascending=True) == everything
    assert ids(ascending=True, start=everything[1], limit=2) == everything[2:4]
    assert ids(start=everything[1]) == everything[:1]
    assert ids(limit=0) == []
    assert ids(groups=("/project/p/branch/main",)) == everything[1::-1]
    assert ids(groups=("/project/p/branch/main/",), ascending=True) == everything[:2]
    assert ids(groups=("/project/p%",)) == ids(groups=("/project/_",)) == ids(groups=("/PROJECT",)) == []
    assert ids(groups=("/project/p",)) == [everything[4], *everything[2::-1]]
    assert ids(phases=(RunPhase.SETUP_ERROR,)) == [broken.id]
    assert ids(phases=(RunPhase.CANCELLED, RunPhase.SETUP_ERROR)) == [broken.id, everything[0]]
    assert ids(results=(RunResult.SUCCESS,)) == []
    assert ids(groups=("/project/p",), last_run=True) == [broken.id, *everything[2:0:-1]]
    assert ids(last_run=True, ascending=True, limit=2) == everything[1:3]
    with pytest.raises(BadRequestError, match="limit must be greater or equal than 0"):
        ids(limit=-1)


def test_a_deleted_executors_tasks_fail_with_the_reason_or_are_tried_again(service, directory):
    first = PlayedExecutor(service, directory, "e1")
    run = service.create_run(request(task("a", ignore_failure=True), task("b", max_attempts=2))).run
    first.wait_task("a")
    stale = first.wait_task("b")
    second = PlayedExecutor(service, directory, "e2")
    service.delete_executor("e1")
    second.wait_task("b")
    assert [item.id for item in service.executors()] == ["e2"]
    assert second.side.task("b").attempt == 2
    late = replace(stale, status=replace(stale.status, phase=ExecutorPhase.FAILED))
    second.side.take_task_status("e1", late)
    assert second.side.task("b").status.phase is ExecutorPhase.NOT_STARTED
    second.end("b")
    run = settled(service, run.id, lambda run: run.tasks["b"].status.is_finished)
    assert (run.tasks["a"].status, run.tasks["a"].reason) == (TaskStatus.FAILED, "executor deleted")
    assert (run.tasks["b"].status, run.tasks["b"].attempt) == (TaskStatus.SUCCESS, 2)


def test_tasks_are_found_by_their_executor_alone(service, directory):
    limited = PlayedExecutor(service, directory, "e1", active_tasks_limit=1)
    other = PlayedExecutor(service, directory, "e2")
    service.create_run(request(task("a"), task("b")))
    limited_task = limited.wait_task("a") if limited.submitted else None
    with other.arrived:
        assert other.arrived.wait_for(lambda: other.submitted, SECONDS)
    held = {name: [item.id for item in service.executor_side.tasks(name)] for name in ("e1", "e2", "e3")}
    assert sorted(held["e1"] + held["e2"]) == ["a", "b"]
    assert len(held["e1"]) == 1
    assert held["e3"] == []
    assert limited_task is None or limited_task.status.executor_id == "e1"
    with pytest.raises(BadRequestError, match="does not exist"):
        service.executor_side.take_task_status("e1", replace(other.submitted[0], id="never"))


def test_a_deleted_run_takes_its_logs_along_unless_a_restart_shares_them(service, directory, dm):
    executor = PlayedExecutor(service, directory)
    run = service.create_run(request(task("a"), task("b"))).run
    with pytest.raises(BadRequestError, match="is not finished"):
        service.delete_run(run.id)
    executor.end("a")
    executor.end("b", ExecutorPhase.FAILED)
    archived(service, run.id)
    again = service.create_run(RunCreateRequest(run_id=run.id)).run
    executor.end(next(name for name in again.tasks if name != "a"))
    archived(service, again.id)
    service.delete_run(run.id)
    with pytest.raises(NotFoundError):
        service.get_run(run.id)
    assert b"".join(service.open_log(again.id, "a", 0)) == b"log 0 of a"
    assert list(dm.storage.list("logs/b/")) == []
    with pytest.raises(BadRequestError, match=f'runconfig "{run.id}" doesn\'t exist'):
        service.create_run(RunCreateRequest(run_id=run.id))
    service.delete_run(again.id)
    assert list(dm.storage.list("logs/")) == list(dm.storage.list("workspacearchives/")) == []
    with pytest.raises(NotFoundError):
        service.delete_run(again.id)
    assert service.list_runs(RunQuery()) == []


def test_task_ids_that_name_no_object_are_refused(service):
    for name in ("", "a/b", "..", "x" * 201):
        with pytest.raises(BadRequestError, match="run config task"):
            service.create_run(request(task("a"), replace(task("b"), id=name)))
    with pytest.raises(BadRequestError, match="has another id"):
        service.create_run(RunCreateRequest(run_config_tasks={"a": task("b")}, group="/project/p"))


def test_retention_rules_delete_what_is_too_old_or_too_many(open_service):
    rules = (
        RetentionRule("/", max_age=3600.0),
        RetentionRule("/project/p", max_count=2),
        RetentionRule("/project/p/branch/keep"),
    )
    service = open_service(retention=rules, start_queued=False)
    groups = ["/project/p/branch/a"] * 4 + ["/project/p/branch/keep"] * 3 + ["/user/u/branch/a"] * 3
    made = []
    for number, group in enumerate(groups):
        made.append(service.create_run(request(task(f"t{number}"), group=group)).run.id)
        service.change_run_phase(made[-1], RunPhase.CANCELLED)
    assert service.wait_archived(made, SECONDS)
    service.list_runs(RunQuery())  # the readdb has them all
    while not service._sweeps.clean():  # its own loop may be at it
        pass
    assert [run.id for run in service.list_runs(RunQuery(limit=100, ascending=True))] == made[2:]
    late = service._state.now() + timedelta(hours=2)
    gone = list(expired(rules, service._queries.ended, late))
    assert sorted(gone) == made[7:]


@pytest.mark.parametrize(
    ("fields", "phase", "errors"),
    [
        ({"setup_errors": ["no such image"]}, "setuperror", ["no such image"]),
        ({"run_config_tasks": {"a": task("a", "a")}}, "setuperror", ["circular dependency between tasks 'a' -> 'a'"]),
        ({"run_config_tasks": {}}, "queued", []),
    ],
)
def test_what_cannot_start_says_so_in_its_set_up_errors(open_service, fields, phase, errors):
    service = open_service(start_queued=False)
    bundle = service.create_run(RunCreateRequest(group="/project/p/branch/b", **fields))
    assert (bundle.run.phase.value, bundle.run.result) == (phase, RunResult.UNKNOWN)
    assert bundle.run_config.setup_errors == errors
    assert (bundle.run.tasks == {}, bundle.run.counter) == (True, 1)


def test_a_restart_is_refused_with_agolas_words(service, directory):
    executor = PlayedExecutor(service, directory)
    broken = service.create_run(replace(request(), setup_errors=["x"])).run
    running = service.create_run(request(task("a"))).run
    for run_id, from_start, words in (
        ("none", True, 'runconfig "none" doesn\'t exist'),
        (broken.id, True, "run cannot be restarted: run has setup errors"),
        (running.id, True, "run cannot be restarted: run is not finished, phase: "),
    ):
        with pytest.raises(BadRequestError, match=words):
            service.create_run(RunCreateRequest(run_id=run_id, from_start=from_start))
    executor.end("a")
    archived(service, running.id)
    with pytest.raises(BadRequestError, match="has success result, cannot restart from failed tasks"):
        service.create_run(RunCreateRequest(run_id=running.id))
    again = service.create_run(RunCreateRequest(run_id=running.id, from_start=True)).run
    assert again.restarted_from == running.id
    assert (again.counter, again.phase) == (3, RunPhase.QUEUED)
    assert "a" not in again.tasks


def test_runs_of_a_group_run_one_after_the_other(service, directory):
    executor = PlayedExecutor(service, directory)
    first, second = (service.create_run(request(task(name))).run for name in ("a", "b"))
    executor.wait_task("a")
    assert service.find_run(second.id).phase is RunPhase.QUEUED
    executor.end("a")
    executor.end("b")
    assert archived(service, second.id).start_time >= archived(service, first.id).end_time


def test_an_approval_lets_a_task_start(service, directory):
    executor = PlayedExecutor(service, directory)
    run = service.create_run(request(task("a", needs_approval=True))).run
    settled(service, run.id, lambda run: run.tasks["a"].waiting_approval)
    with pytest.raises(BadRequestError, match=f'run "{run.id}" doesn\'t have task "b"'):
        service.approve_task(run.id, "b")
    service.approve_task(run.id, "a")
    with pytest.raises(BadRequestError, match="is already approved"):
        service.approve_task(run.id, "a")
    executor.end("a")
    assert archived(service, run.id).result is RunResult.SUCCESS
    with pytest.raises(NotFoundError, match="is not active"):
        service.approve_task(run.id, "a")


def test_two_services_share_runs_and_each_goes_on_with_the_others(open_service, directory):
    services = [open_service(), open_service()]
    executor = PlayedExecutor(services[0], directory)
    names = services[0].live_instances()
    assert len(names) == 2
    firsts = {first_of(names, f"run-{number}") for number in range(50)}
    assert firsts == set(names)
    runs = []
    for number in range(10):
        service = services[number % 2]
        runs.append(service.create_run(request(task(f"t{number}"), group=f"/project/p/branch/{number}")).run)
        executor.end(f"t{number}")
    for service in services:
        assert service.wait_archived([run.id for run in runs], SECONDS)
        assert {run.result for run in service.list_runs(RunQuery())} == {RunResult.SUCCESS}
    submitted = [item.id for item in executor.submitted]
    assert sorted(submitted) == sorted(set(submitted))
    services[0].close()
    last = services[1].create_run(request(task("last"))).run
    executor.side = services[1].executor_side
    executor.end("last")
    assert archived(services[1], last.id).result is RunResult.SUCCESS


def test_a_task_id_is_used_once(service, directory, open_service):
    """Logs and archives are kept by task id: a second run would show the first one's as its own."""
    executor = PlayedExecutor(service, directory)
    first = service.create_run(request(task("a"), task("b"))).run
    with pytest.raises(ConflictError, match=f"task id 'b' was used before, by run '{first.id}'"):
        service.create_run(request(task("b"), group="/project/q/branch/main"))
    executor.end("a")
    executor.end("b", ExecutorPhase.FAILED)
    archived(service, first.id)
    for maker in (service, open_service()):
        with pytest.raises(ConflictError, match="'a' was used before"):
            maker.create_run(request(task("new"), task("a")))
    again = service.create_run(RunCreateRequest(run_id=first.id)).run  # which shares the task that succeeded
    assert "a" in again.tasks
    with pytest.raises(ConflictError, match="'a' was used before"):
        service.create_run(request(task("a")))
    assert service.create_run(request(task("new"))).run.tasks.keys() == {"new"}


def test_one_of_two_runs_that_are_made_at_once_gets_a_task_id(service):
    inside, go_on = threading.Event(), threading.Event()

    def hold(name):
        if name == "create.before-commit" and not inside.is_set():
            inside.set()
            assert go_on.wait(SECONDS)

    with faultpoints.arm(hold):
        maker = threading.Thread(target=service.create_run, args=(request(task("a")),))
        maker.start()
        assert inside.wait(SECONDS)
        with pytest.raises(ConflictError, match="'a' is being used"):
            service.create_run(request(task("a"), group="/project/q/branch/main"))
        go_on.set()
        maker.join(SECONDS)
    assert len(service.active_runs()) == 1


def test_a_run_that_begins_while_it_is_stopped_is_stopped(open_service, directory):
    service = open_service(start_queued=False)
    PlayedExecutor(service, directory)
    run = service.create_run(request(task("a"))).run

    class Begins:
        """The service, with a run that begins right after it was refused to be stopped."""

        def stop_run(self, run_id):
            try:
                service.stop_run(run_id)
            except BadRequestError:
                service.change_run_phase(run_id, RunPhase.RUNNING)
                raise

        def change_run_phase(self, run_id, phase):
            service.change_run_phase(run_id, phase)

    stop_run(Begins(), run.id)
    assert service.find_run(run.id).stop
