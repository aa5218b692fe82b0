"""Callers that work together: each one's work is done once, and nobody waits for ever."""

import threading

import pytest

from agola_core.errors import DeadlineError, UnavailableError, UnknownOutcomeError
from agola_core.runtime.threads.leader_queue import LeaderQueue, Waiting

JOIN_SECONDS = 30


class Job(Waiting):
    def __init__(self, number):
        super().__init__()
        self.number = number


class Worker:
    """Notes what was worked on together; can be held, so that a test decides who waits for whom."""

    def __init__(self, parts=None):
        self.rounds = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.begun = threading.Semaphore(0)
        self.fail_with = None
        self.queue = LeaderQueue(self.work, parts)

    def work(self, jobs):
        self.begun.release()
        assert self.may_go.wait(JOIN_SECONDS)
        self.rounds.append([job.number for job in jobs])
        if self.fail_with is not None:
            raise self.fail_with
        for job in jobs:
            job.done = True


class Caller(threading.Thread):
    def __init__(self, queue, number, timeout=None):
        super().__init__(daemon=True)
        self.queue, self.job, self.timeout, self.error = queue, Job(number), timeout, None
        self.start()

    def run(self):
        try:
            self.queue.do(self.job, self.timeout)
        except BaseException as error:
            self.error = error


def waiting_behind(worker, count):
    """Return callers of whom the first works and the others wait together, all of them enqueued."""
    worker.may_go.clear()
    first = Caller(worker.queue, 0)
    assert worker.begun.acquire(timeout=JOIN_SECONDS)
    others = []
    for number in range(1, count + 1):
        others.append(Caller(worker.queue, number))
        while True:  # until it has joined
            with worker.queue._lock:
                if worker.queue._open is not None and len(worker.queue._open.waiting) == number:
                    break
    return first, others


def join(*callers):
    for caller in callers:
        caller.join(JOIN_SECONDS)
        assert not caller.is_alive()


def test_who_waits_meanwhile_is_done_together_in_order():
    worker = Worker()
    first, others = waiting_behind(worker, 5)
    worker.may_go.set()
    join(first, *others)
    assert worker.rounds == [[0], [1, 2, 3, 4, 5]]
    assert all(caller.error is None for caller in others)


def test_a_round_is_split_as_asked():
    worker = Worker(parts=lambda jobs: [jobs[:2], jobs[2:]])
    first, others = waiting_behind(worker, 5)
    worker.may_go.set()
    join(first, *others)
    assert worker.rounds == [[0], [1, 2], [3, 4, 5]]


def test_an_error_is_everybodys_of_the_round_and_nobody_elses():
    worker = Worker()
    first, others = waiting_behind(worker, 3)
    worker.fail_with = UnavailableError("the disk is gone")
    worker.may_go.set()
    join(first, *others)
    assert all(caller.error is worker.fail_with for caller in (first, *others))
    worker.fail_with = None
    worker.queue.do(Job(9))
    assert worker.rounds[-1] == [9]


def test_an_interrupted_leader_leaves_an_unknown_outcome_to_the_others():
    worker = Worker()
    first, others = waiting_behind(worker, 3)
    worker.fail_with = KeyboardInterrupt()
    worker.may_go.set()
    join(first, *others)
    raised = [type(caller.error) for caller in others]
    assert sorted(raised, key=str) == [KeyboardInterrupt, UnknownOutcomeError, UnknownOutcomeError]
    worker.fail_with = None
    worker.queue.do(Job(9))


@pytest.mark.parametrize("late", ["leader", "follower"])
def test_who_gives_up_is_not_worked_for_and_the_others_are(late):
    worker = Worker()
    worker.may_go.clear()
    first = Caller(worker.queue, 0)
    assert worker.begun.acquire(timeout=JOIN_SECONDS)
    if late == "leader":
        gives_up = Caller(worker.queue, 1, timeout=0.05)
        stays = Caller(worker.queue, 2)
    else:
        stays = Caller(worker.queue, 2)
        gives_up = Caller(worker.queue, 1, timeout=0.05)
    join(gives_up)
    assert isinstance(gives_up.error, DeadlineError)
    worker.may_go.set()
    join(first, stays)
    assert stays.error is None
    assert sorted(number for numbers in worker.rounds for number in numbers) == [0, 2]


def test_every_one_of_many_is_done_exactly_once():
    done = []
    lock = threading.Lock()

    def work(jobs):
        with lock:
            done.extend(job.number for job in jobs)
        for job in jobs:
            job.done = True

    queue = LeaderQueue(work, lambda jobs: [jobs[start : start + 3] for start in range(0, len(jobs), 3)])

    def call(first):
        for number in range(first, first + 500):
            queue.do(Job(number), 60.0 if number % 2 else None)

    threads = [threading.Thread(target=call, args=(index * 500,)) for index in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_SECONDS)
        assert not thread.is_alive()
    assert sorted(done) == list(range(6000))
