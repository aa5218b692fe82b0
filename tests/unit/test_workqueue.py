"""The run service's queue, and what it is told of: each key waits once, and nobody is told before it can listen."""

import agola_core
from agola_core import Options
from agola_core.coordinator import PutOp
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.mirror import Mirror
from agola_core.runtime.work_queue import WorkQueue


def test_a_key_that_waits_at_leisure_is_done_once_however_often_sweeps_ask_for_it():
    done = []
    queue = WorkQueue("test", done.append, threads=0)
    for _ in range(3):
        queue.add_at_leisure("a")
        queue.add_at_leisure("b")
    queue.add("c")
    while queue.run_one():
        pass
    assert done == ["c", "a", "b"]
    queue.add_at_leisure("a")
    assert queue.run_one()
    assert done[-1] == "a"


def test_a_mirror_tells_nobody_while_it_is_made(tmp_path):
    with agola_core.open(tmp_path, data_types=["run"], options=Options(background=False)) as dm:
        dm.coordinator.txn([], [PutOp(f"{run_keys.RUNS}gone/0", b"[]")])
        told = []
        mirror = Mirror(dm.coordinator, dm.sequence.epoch, told.append)
        try:
            assert told == []
            assert mirror.follow(0.0)
            assert told == ["gone"]
        finally:
            mirror.close()
