"""Whether a process still runs: its number alone does not tell."""

import os
import socket
import subprocess
import sys

import msgspec
import pytest

import agola_core
from agola_core import ConflictError, Options, Put
from agola_core.coordinator.port import PutOp
from agola_core.datamanager.format import keys, records
from agola_core.datamanager.format.records import InstanceRecord
from agola_core.maintenance import mode
from agola_core.runtime.processes.liveness import is_running, may_live, start_time


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def end_unreaped(process):
    """Kill a child without taking note of its end: it stays a zombie."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def test_a_number_that_was_used_again_and_a_zombie_are_not_the_process(child):
    start = start_time(child.pid)
    assert is_running(child.pid, start)
    assert is_running(child.pid, 0)
    assert not is_running(child.pid, start - 1)  # another process had the number before
    end_unreaped(child)
    assert start_time(child.pid) is None
    assert not is_running(child.pid, start)
    assert not is_running(child.pid, 0)
    child.wait()
    assert not is_running(child.pid, start)


def record(name, pid, start, host=None):
    return InstanceRecord(name, host or socket.gethostname(), pid, "2026-01-01T00:00:00+00:00", start=start)


def test_a_process_of_another_machine_may_live():
    assert may_live(record("a", 1 << 22, 1, "elsewhere"))
    assert not may_live(record("a", 1 << 22, 1))


def test_an_import_is_refused_for_living_processes_only(tmp_path, child):
    with agola_core.open(tmp_path / "store", data_types=["note"], options=Options(background=False)) as dm:
        dm.write_wal([Put("note", "a", b"1")])
        with (tmp_path / "export").open("wb") as file:
            dm.export(file)

        def publish(start):
            found = record("other", child.pid, start)
            dm.coordinator.txn([], [PutOp(keys.instance("other"), records.encode(found))])

        def import_():
            with (tmp_path / "export").open("rb") as file:
                dm.import_(file)

        mode.enable(dm.coordinator)
        start = start_time(child.pid)
        for living in (start, 0):
            publish(living)
            with pytest.raises(ConflictError, match="cannot import while others have the store open: other"):
                import_()
            with pytest.raises(ConflictError, match="others have the store open: other"):
                mode.barrier(dm.coordinator, dm.options.instance)
        publish(start - 1)  # the number was used again
        import_()
        mode.barrier(dm.coordinator, dm.options.instance)
        publish(start)
        end_unreaped(child)
        import_()
        mode.barrier(dm.coordinator, dm.options.instance)


def test_an_instance_publishes_when_its_process_was_started(tmp_path):
    with agola_core.open(tmp_path / "store", data_types=["note"], options=Options(background=False)) as dm:
        item = dm.coordinator.get(keys.instance(dm.options.instance))
        found = msgspec.json.decode(item.value, type=InstanceRecord)
        assert (found.pid, found.start) == (os.getpid(), start_time(os.getpid()))
