"""The kernel's events of a file's writes."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agola_core.coordinator import PutOp
from agola_core.coordinator.sqlite import watch
from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
from agola_core.runtime.processes.file_events import FileEvents

LONG = 60.0


@pytest.fixture
def events(tmp_path):
    events = FileEvents(tmp_path, ["log", "log-wal"])
    yield events
    events.close()
    events.close()
    events.interrupt()


def test_a_write_the_coming_and_the_going_of_a_named_file_are_told_once(tmp_path, events):
    (tmp_path / "log").write_bytes(b"1")
    assert events.wait(LONG)
    (tmp_path / "other").write_bytes(b"1")
    assert not events.wait(0.0)
    subprocess.run([sys.executable, "-c", f"open({str(tmp_path / 'log-wal')!r}, 'w').write('1')"], check=True)
    assert events.wait(LONG)
    (tmp_path / "log").rename(tmp_path / "elsewhere")
    assert events.wait(LONG)
    (tmp_path / "log-wal").unlink()
    assert events.wait(LONG)
    assert not events.wait(0.0)


def test_many_events_are_told_of_as_one(tmp_path, events):
    with (tmp_path / "other").open("wb", buffering=0) as other, (tmp_path / "log").open("wb", buffering=0) as log:
        for _ in range(5000):  # two files in turn: the kernel merges equal events in a row
            other.write(b"1")
            log.write(b"1")
    while events.wait(0.0):
        pass
    log_again = tmp_path / "log"
    log_again.write_bytes(b"2")
    assert events.wait(LONG)


def test_nothing_is_told_of_what_happens_while_muted(tmp_path, events):
    with events.muted():
        (tmp_path / "log").write_bytes(b"1")
    assert not events.wait(0.0)
    (tmp_path / "log").write_bytes(b"2")
    assert events.wait(LONG)


def test_a_watch_that_the_kernel_refuses_after_a_silence_leaves_it_deaf(tmp_path):
    (tmp_path / "gone").mkdir()
    events = FileEvents(tmp_path / "gone", ["log"])
    try:
        with events.muted():
            assert not events.deaf
            (tmp_path / "gone").rmdir()
        assert events.deaf
        assert not events.wait(0.0)
    finally:
        events.close()


def test_an_interrupt_ends_a_wait_and_all_later_ones(events):
    thread = threading.Thread(target=events.wait, args=(LONG,))
    thread.start()
    events.interrupt()
    thread.join(LONG)
    assert not thread.is_alive()
    assert not events.wait(LONG)


def test_a_directory_that_is_not_there_has_no_events(tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert FileEvents.of(tmp_path / "none", ["log"]) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("has_events", ["all along", "once", "never"])
def test_a_watch_sees_another_process_with_and_without_events(tmp_path, monkeypatch, has_events):
    if has_events == "never":
        monkeypatch.setattr(watch.FileEvents, "of", lambda *_: None)
    elif has_events == "once":  # the limit of watches was used up during a silence
        found = FileEvents(tmp_path, ["coordinator.db", "coordinator.db-wal"])
        with found.muted():
            monkeypatch.setattr(found, "_watch_directory", lambda: False)
        monkeypatch.setattr(watch, "_SHORTEST_POLL", LONG)
        monkeypatch.setattr(watch.FileEvents, "of", lambda *_: found)
    path = tmp_path / "coordinator.db"
    code = (
        "import sys; from agola_core.coordinator import PutOp;"
        "from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator;"
        "c = SQLiteCoordinator(sys.argv[1]);"
        "[c.txn([], [PutOp(f'theirs/{number}', b'')]) for number in range(20)]; c.close()"
    )
    coordinator = SQLiteCoordinator(path)
    try:
        coordinator.txn([], [PutOp("ours", b"")])
        following = coordinator.watch("theirs/", 1)
        with subprocess.Popen([sys.executable, "-c", code, path]):
            seen: list[str] = []
            while len(seen) < 20:
                batch = following.next(LONG)
                assert batch is not None
                seen += [event.key for event in batch.events]
        assert seen == [f"theirs/{number}" for number in range(20)]
    finally:
        coordinator.close()


def test_a_process_without_descriptors_for_it_gets_none_and_keeps_those_that_it_has(tmp_path):
    script = """
import os, resource, sys
from agola_core.runtime.processes.file_events import FileEvents
FileEvents.of(sys.argv[1], ["a"]).close()
free = os.open("/dev/null", os.O_RDONLY)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
assert FileEvents.of(sys.argv[1], ["a"]) is None
assert os.open("/dev/null", os.O_RDONLY) == free
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
