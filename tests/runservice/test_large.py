"""Many tasks in a run, many active runs, and a coordinator whose transactions are small."""

import threading

import pytest
from msgspec.structs import replace

import agola_core
from agola_core import Options
from agola_core.runservice.archive.projection import DATA_TYPES
from agola_core.runservice.inprocess import InProcessDirectory
from agola_core.runservice.model.requests import RunCreateRequest, RunQuery
from agola_core.runservice.model.types import ExecutorPhase, RunPhase, RunResult, TaskStatus
from agola_core.runservice.service import RunService
from agola_core.runservice.state.run_record import decode_header, decode_part, part_sizes, run_ops, with_parts
from bench.runservice.activeruns import fill
from tests.support.runs import PlayedExecutor, request, settled, task

ETCD_OPS = 128


class Prompt(PlayedExecutor):
    """An executor whose tasks end at once."""

    def submit(self, task):
        super().submit(task)
        if not task.stop:
            self.end(task.id)


@pytest.fixture
def small_transactions(dm):
    dm.coordinator.max_txn_ops = ETCD_OPS  # the embedded one holds to whatever it says
    return dm


def many(count, **fields):
    return request(*(task(f"t{number}", **fields) for number in range(count)))


def test_a_run_of_many_tasks_fits_small_transactions(small_transactions, service, directory):
    Prompt(service, directory, active_tasks_limit=50)
    run = service.create_run(many(300)).run
    run = settled(service, run.id, lambda run: run.phase.is_finished)
    assert run.result is RunResult.SUCCESS
    assert list(run.tasks) == [f"t{number}" for number in range(300)]
    assert service.wait_archived([run.id], 60.0)


def test_a_stop_reaches_more_tasks_than_a_transaction_holds(small_transactions, service, directory):
    executor = PlayedExecutor(service, directory)
    run = service.create_run(many(200)).run
    for number in range(200):
        executor.wait_task(f"t{number}")
    service.stop_run(run.id)
    for number in range(200):
        executor.end(f"t{number}", ExecutorPhase.STOPPED)
    run = settled(service, run.id, lambda run: run.phase.is_finished)
    assert run.result is RunResult.STOPPED
    assert {item.status for item in run.tasks.values()} == {TaskStatus.STOPPED}


@pytest.mark.parametrize("count", [0, 1, 16, 17, 33, 2048, 5001])
def test_a_change_of_one_task_writes_one_part(count):
    bundle = agola_core.runservice.rules.new_run.new_run(many(count), "run", 1, None)
    ops = run_ops(bundle.run)
    assert sum(part_sizes(count)) in {0, count}
    assert len(ops) <= 65
    header, parts = decode_header(ops[0])
    assert parts == len(ops) - 1
    whole = with_parts(header, [decode_part(op) for op in ops[1:]]) if parts else header
    assert whole == bundle.run
    assert list(whole.tasks) == list(bundle.run.tasks)
    if count:
        name = f"t{count // 2}"
        changed = replace(whole, tasks={**whole.tasks, name: replace(whole.tasks[name], approved=True)})
        assert len(run_ops(changed, whole)) == (2 if parts else 1)
        assert sum(len(op.value) for op in ops) < 1_500_000


def test_runs_on_etcd(agola_etcd, tmp_path):
    directory = InProcessDirectory()
    with (
        agola_core.open(
            storage=str(tmp_path / "storage"),
            coordinator=agola_etcd.url("runs"),
            data_types=DATA_TYPES,
            options=Options(background=False),
        ) as dm,
        RunService(dm, tmp_path / "readdb.db", directory) as service,
    ):
        Prompt(service, directory, active_tasks_limit=20)
        made = [service.create_run(many(100)).run.id]
        made += [
            service.create_run(request(task(f"x{number}"), group=f"/project/p/pr/{number}")).run.id
            for number in range(5)
        ]
        assert service.wait_archived(made, 60.0)
        runs = service.list_runs(RunQuery(ascending=True))
    assert [run.id for run in runs] == made
    assert {run.result for run in runs} == {RunResult.SUCCESS}
    assert [run.counter for run in runs] == [1, 2, 3, 4, 5, 6]


def test_a_few_hundred_active_runs_share_two_executors(service, directory):
    """A slice of the load test: `make bench BENCH=runs` has ten thousand."""
    fill(service.datamanager, 300)
    Prompt(service, directory, "e1", active_tasks_limit=4)
    Prompt(service, directory, "e2", active_tasks_limit=4)
    made = []
    lock = threading.Lock()

    def create(part):
        for number in range(25):
            name = f"p{part}-{number}"
            asked = request(task(name), task(f"{name}-b", name), group=f"/project/p{part}/branch/{number}")
            run = service.create_run(asked).run
            with lock:
                made.append(run.id)

    threads = [threading.Thread(target=create, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert service.wait_archived(made, 120.0)
    idle = service.list_runs(RunQuery(phases=(RunPhase.RUNNING,), limit=1000))
    assert len(idle) == 300
    ended = service.list_runs(RunQuery(phases=(RunPhase.FINISHED,), limit=1000))
    assert sorted(run.id for run in ended) == sorted(made)
    assert {run.result for run in ended} == {RunResult.SUCCESS}
    waiting = service.create_run(RunCreateRequest(run_config_tasks={}, group="/project/p0/branch/none")).run
    assert service.wait_archived([waiting.id], 20.0)
