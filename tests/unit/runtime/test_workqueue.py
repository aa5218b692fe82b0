"""The run service's queue and its mirror: each key waits once, and what was there at the start is queued, too."""

import agola_core
from agola_core import Options
from agola_core.coordinator import PutOp
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.memory.mirror import Mirror
from agola_core.runtime.threads.work_queue import WorkQueue


def test_a_key_of_low_priority_is_done_once_however_often_sweeps_ask_for_it():
    done = []
    queue = WorkQueue("test", threads=0)
    for _ in range(3):
        queue.add_low_priority("a")
        queue.add_low_priority("b")
    queue.add("c")
    while queue.run_one(done.append):
        pass
    assert done == ["c", "a", "b"]
    queue.add_low_priority("a")
    assert queue.run_one(done.append)
    assert done[-1] == "a"


def test_what_a_mirror_has_loaded_is_its_first_change(tmp_path):
    with agola_core.open(tmp_path, data_types=["run"], options=Options(background=False)) as dm:
        dm.coordinator.txn([], [PutOp(f"{run_keys.RUNS}gone/0", b"[]")])
        mirror = Mirror(dm.coordinator, dm.sequence.epoch)
        try:
            changes = mirror.follow(0.0)
            assert changes is not None
            assert changes.runs == {"gone"}
            assert mirror.follow(0.0) is None
        finally:
            mirror.close()
