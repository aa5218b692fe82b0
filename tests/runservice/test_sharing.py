"""Restarts and deletions at the same time, in every interleaving: no log that a run needs is lost, none is left."""

import tempfile
import threading
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

import agola_core
from agola_core import Options
from agola_core.errors import BadRequestError, ConflictError, NotFoundError
from agola_core.runservice.archive.projection import DATA_TYPES
from agola_core.runservice.inprocess import InProcessDirectory
from agola_core.runservice.model.options import ServiceOptions
from agola_core.runservice.model.requests import RunCreateRequest
from agola_core.runservice.model.types import ExecutorPhase, TaskStatus
from agola_core.runservice.service import RunService
from agola_core.runtime import faultpoints
from tests.support.runs import SECONDS, PlayedExecutor, request, task

POINTS = {
    "create.before-commit",
    "references.before-write",
    "references.before-release",
    "references.before-delete",
    "delete.before-wal",
    "delete.before-release",
    "runservice.before-txn",
}


class Turns:
    """Lets one of several threads go on at a time, from fault point to fault point.

    Args:
        order: Which thread goes on, and over how many points.
    """

    def __init__(self, order):
        self.condition = threading.Condition()
        self.order = [number for number, points in order for _ in range(points)]
        self.numbers = {}
        self.waiting = set()
        self.running = 0

    def reach(self, name):
        me = self.numbers.get(threading.get_ident())
        if name not in POINTS or me is None:
            return
        with self.condition:
            self.waiting.add(me)
            self.running -= 1
            self.condition.notify_all()
            assert self.condition.wait_for(lambda: me not in self.waiting, SECONDS)

    def run(self, works):
        errors = []

        def do(number, work):
            self.numbers[threading.get_ident()] = number
            try:
                work()
            except Exception as error:
                errors.append(error)
            finally:
                with self.condition:
                    self.running -= 1
                    self.condition.notify_all()

        threads = [threading.Thread(target=do, args=item) for item in enumerate(works)]
        self.running = len(threads)
        for thread in threads:
            thread.start()
        while True:
            with self.condition:
                assert self.condition.wait_for(lambda: self.running == 0, SECONDS)
                if not self.waiting:
                    break
                while self.order and self.order[0] not in self.waiting:
                    self.order.pop(0)
                self.waiting.discard(self.order.pop(0) if self.order else min(self.waiting))
                self.running += 1
                self.condition.notify_all()
        for thread in threads:
            thread.join(SECONDS)
        return errors


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1, 2, 3, 20])), max_size=10),
    st.sampled_from(["rab", "rab", "ra", "rb", "ab", "aab"]),
)
def test_no_interleaving_loses_a_log_or_leaves_one(order, what):
    with (
        tempfile.TemporaryDirectory() as root,
        agola_core.open(Path(root, "store"), data_types=DATA_TYPES, options=Options(background=False)) as dm,
    ):
        directory = InProcessDirectory()
        service = RunService(dm, Path(root, "readdb.db"), directory, ServiceOptions())
        executor = PlayedExecutor(service, directory)
        made = [finished_run(service, executor, request(task("kept"), task("failed")))]
        made.append(finished_run(service, executor, RunCreateRequest(run_id=made[0])))

        def delete(run_id):
            try:
                service.delete_run(run_id)
            except NotFoundError:
                return
            made.remove(run_id)

        def restart(run_id):
            try:
                made.append(service.create_run(RunCreateRequest(run_id=run_id)).run.id)
            except (BadRequestError, ConflictError):
                return

        works = {"a": lambda: delete(first), "b": lambda: delete(second), "r": lambda: restart(second)}
        first, second = made
        turns = Turns(order)
        with faultpoints.arm(turns.reach):
            errors = turns.run([works[kind] for kind in what])
        assert errors == []
        for run_id in made:
            run = service.find_run(run_id)
            kept = [item.id for item in run.tasks.values() if item.status is TaskStatus.SUCCESS]
            assert kept == ["kept"]
            assert b"".join(service.open_log(run_id, "kept", 0)) == b"log 0 of kept"
            assert dm.storage.stat(f"logs/kept/runs/{run_id}").size == 0
        for run_id in made:
            service.run_pending()
            for item in executor.side.tasks("e1"):
                executor.end(item.id, ExecutorPhase.FAILED)
            service.run_pending()
            service.delete_run(run_id)
        assert [info.path for info in dm.storage.list("logs/")] == []
        assert list(dm.coordinator.list("rs/releases/").items) == []
        service.close()


def finished_run(service, executor, asked):
    run = service.create_run(asked).run
    service.run_pending()
    for item in executor.side.tasks("e1"):
        failed = item.task_name == "failed"
        executor.end(item.id, ExecutorPhase.FAILED if failed else ExecutorPhase.SUCCESS)
    service.run_pending()
    assert service.find_run(run.id).archived
    return run.id
