"""Logs that commands write are watched, and what was written has its time."""

import os
import queue
import threading

import pytest

from agola_core.executor.tasks import log_watcher
from agola_core.executor.tasks.directory import TaskDirectories
from agola_core.executor.tasks.log_times import TaskTimes
from agola_core.executor.tasks.log_watcher import LogWatcher
from agola_core.runservice.model.line_times import parse

SECONDS = 20.0


@pytest.fixture(params=["inotify", "looking"])
def watcher(request, monkeypatch, tmp_path):  # it ends before the directory goes
    if request.param == "looking":  # as where the user has used up its watches

        class Used:
            inotify_init1 = inotify_add_watch = inotify_rm_watch = staticmethod(lambda *_: -1)

        monkeypatch.setattr(log_watcher.ctypes, "CDLL", lambda *_, **__: Used)
    made = LogWatcher()
    yield made
    made.close()
    made.close()


def test_what_a_command_writes_is_noticed_until_the_watch_ends(watcher, tmp_path):
    path, other = tmp_path / "0.log", tmp_path / "1.log"
    path.touch()
    other.touch()
    sizes, others = queue.Queue(), queue.Queue()
    first = watcher.add(path, lambda: sizes.put(path.stat().st_size) or 0.0)
    watcher.add(other, lambda: others.put(other.stat().st_size) or 0.0)
    for size in (1, 2, 3):
        with path.open("ab") as file:
            file.write(b"x")
        while sizes.get(timeout=SECONDS) < size:
            pass
    watcher.remove(first)
    with path.open("ab") as file:
        file.write(b"x")
    with other.open("ab") as file:
        file.write(b"x")
    while others.get(timeout=SECONDS) < 1:
        pass


def test_logs_that_a_step_made_one_file_are_watched_each(watcher, tmp_path):
    path, other = tmp_path / "0.log", tmp_path / "1.log"
    path.touch()
    os.link(path, other)
    calls, others, answers = queue.Queue(), queue.Queue(), iter([0.2])
    first = watcher.add(path, lambda: calls.put(1) or 0.0)
    calls.get(timeout=SECONDS)
    watcher.add(other, lambda: others.put(1) or next(answers, 0.0))
    others.get(timeout=SECONDS)
    watcher.remove(first)  # the other one is due again after that
    others.get(timeout=SECONDS)
    while not others.empty():
        others.get()
    path.write_bytes(b"x")
    others.get(timeout=SECONDS)


def test_a_log_that_is_to_be_looked_at_again_is(watcher, tmp_path):
    path = tmp_path / "0.log"
    path.touch()
    calls, answers = queue.Queue(), iter([0.001, 0.001])
    watcher.add(path, lambda: calls.put(1) or next(answers, 0.0))
    path.write_bytes(b"x")
    for _ in range(3):
        calls.get(timeout=SECONDS)


def test_a_link_to_what_cannot_be_looked_at_ends_no_watch_of_other_tasks(watcher, tmp_path):
    path, other = tmp_path / "0.log", tmp_path / "1.log"
    path.symlink_to("x" * 300)  # no name is so long
    other.touch()
    first, others = queue.Queue(), queue.Queue()
    watcher.add(path, lambda: first.put(1) or 0.0)
    first.get(timeout=SECONDS)
    watcher.add(other, lambda: others.put(1) or 0.0)
    others.get(timeout=SECONDS)


@pytest.mark.parametrize("missing", [(threading.Thread, "start", RuntimeError), (os, "pipe2", OSError)])
def test_logs_for_which_there_is_no_thread_are_watched_when_there_is_one(
    watcher, tmp_path, monkeypatch, caplog, missing
):
    place, name, error = missing
    first, others = queue.Queue(), queue.Queue()
    for path in (tmp_path / "0.log", tmp_path / "1.log"):
        path.touch()

    def refuse(*_):
        raise error("there is none")

    with monkeypatch.context() as full:
        full.setattr(place, name, refuse)
        watcher.add(tmp_path / "0.log", lambda: first.put(1) or 0.0)
    assert "logs are not watched" in caplog.text
    watcher.add(tmp_path / "1.log", lambda: others.put(1) or 0.0)
    first.get(timeout=SECONDS)
    others.get(timeout=SECONDS)


@pytest.fixture
def directory(tmp_path):
    made = TaskDirectories(tmp_path / "tasks").of("a")
    made.create()
    return made


def append(directory, data):
    with directory.log(0).open("ab") as file:
        file.write(data)


def test_what_was_written_while_no_executor_ran_has_the_time_of_the_last_write(directory):
    now = 1000
    times = TaskTimes(directory, LogWatcher(), lambda: now)
    append(directory, b"one\n")
    times.record(0)
    times.end()
    with directory.times(0).open("ab") as file:
        file.write(b"cut")  # it was killed on the way
    append(directory, b"two\n")
    os.utime(directory.log(0), (3.5, 3.5))
    now = 9000
    again = TaskTimes(directory, LogWatcher(), lambda: now)
    again.record(0)
    append(directory, b"three\n")
    again.end()
    found = parse(directory.times(0).read_bytes())
    assert [found.at(end) for end in (4, 8, 14)] == [1000, 3500, 9000]


def test_a_log_that_is_emptied_begins_anew_and_a_full_disk_ends_the_times(directory, monkeypatch):
    now = 1000
    times = TaskTimes(directory, LogWatcher(), lambda: now)
    append(directory, b"one\n" * 10)
    times.record(0)
    os.truncate(directory.log(0), 0)
    now = 2000
    append(directory, b"two\n")
    times.record(0)
    times.end()
    assert parse(directory.times(0).read_bytes()).at(4) == 2000
    write, now = os.write, 3000
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:3]))
    append(directory, b"three\n")
    times.record(0)
    monkeypatch.undo()
    append(directory, b"four\n")
    times.end()
    found = parse(directory.times(0).read_bytes())
    assert [found.at(end) for end in (4, 10)] == [2000, None]


def test_a_log_with_a_hole_larger_than_any_disk_has_no_times(directory):
    times = TaskTimes(directory, LogWatcher(), lambda: 1000)
    append(directory, b"one\n")
    times.record(0)
    known = times.unsaved(0)
    os.truncate(directory.log(0), (1 << 42) + 1)
    times.record(0)
    assert times.unsaved(0) == known
    times.end()
    assert parse(directory.times(0).read_bytes()).size == 4
