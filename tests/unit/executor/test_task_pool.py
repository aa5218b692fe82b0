"""The pool of an executor's tasks: at most so many at once, in their order, and threads that are used again."""

import threading
from types import SimpleNamespace

import pytest

from agola_core.errors import UnavailableError
from agola_core.executor.tasks.pool import TaskPool

SECONDS = 30.0


class Work:
    """What a pool runs: it says that it runs, and goes on when the test lets it."""

    def __init__(self, pool, name):
        self.pool = pool
        self.task = SimpleNamespace(id=name)
        self.begun = False
        self.runs, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()

    def begin(self):
        self.begun = True

    def run(self):
        self.thread = threading.current_thread()
        self.name = self.thread.name
        self.runs.set()
        assert self.go.wait(SECONDS)
        self.pool.remove(self)
        self.ended.set()

    def end(self):
        self.go.set()
        assert self.ended.wait(SECONDS)


def test_as_many_at_once_as_the_limit_says_and_the_others_in_their_order():
    pool = TaskPool(2)
    works = [Work(pool, name) for name in "abcd"]
    for work in works:
        pool.add(work)
    first, second, third, fourth = works
    assert first.runs.wait(SECONDS)
    assert second.runs.wait(SECONDS)
    assert [work.begun for work in works] == [True, True, False, False]
    assert "d" in pool
    assert len(pool.all()) == 4
    second.end()
    assert third.runs.wait(SECONDS)
    assert (third.thread, third.name) == (second.thread, "task-c")
    assert not fourth.begun
    for work in (third, first, fourth):
        work.end()
    assert not pool.all()
    pool.close()
    for work in works:
        work.thread.join(SECONDS)
        assert not work.thread.is_alive()


def test_a_thread_without_a_task_takes_the_next_one_or_ends_with_the_pool(monkeypatch):
    monkeypatch.setattr("agola_core.executor.tasks.pool._IDLE_SECONDS", SECONDS)
    pool = TaskPool(0)
    first, second, third = (Work(pool, name) for name in "abc")
    pool.add(first)
    first.end()
    while not pool._idle:  # its thread waits in a moment
        pass
    pool.add(second)
    pool.add(third)
    assert second.runs.wait(SECONDS)
    assert third.runs.wait(SECONDS)
    assert second.thread is first.thread
    assert third.thread is not first.thread
    pool.close()
    for work in (second, third):
        work.end()
        work.thread.join(SECONDS)
        assert not work.thread.is_alive()


def test_a_thread_ends_when_no_task_comes(monkeypatch):
    monkeypatch.setattr("agola_core.executor.tasks.pool._IDLE_SECONDS", 0.001)
    pool = TaskPool(0)
    first, second = Work(pool, "a"), Work(pool, "b")
    pool.add(first)
    first.end()
    first.thread.join(SECONDS)
    assert not first.thread.is_alive()
    pool.add(second)
    second.end()
    assert second.thread is not first.thread


def test_a_task_for_which_there_is_no_thread_is_not_taken_and_can_come_again(monkeypatch):
    pool = TaskPool(1)

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        with pytest.raises(UnavailableError, match="no thread can be started for task 'a'"):
            pool.add(Work(pool, "a"))
    assert not pool.all()
    work = Work(pool, "a")
    pool.add(work)
    assert work.runs.wait(SECONDS)
    work.end()
    pool.close()
    work.thread.join(SECONDS)


def test_a_task_whose_end_fails_gives_its_place_to_the_next_one(caplog):
    pool = TaskPool(1)
    first, second = Work(pool, "a"), Work(pool, "b")
    first.run = lambda: 1 / 0
    pool.add(first)
    pool.add(second)
    assert second.runs.wait(SECONDS)
    assert "the end of task a failed" in caplog.text
    second.end()
    pool.close()
    second.thread.join(SECONDS)
