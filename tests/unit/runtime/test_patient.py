"""Calls that hang hold up nobody for long, and not too many of them hang at a time."""

import threading

import pytest

from agola_core import NotFoundError, UnavailableError
from agola_core.runtime.threads.patient import Patient


def test_what_a_call_returns_or_raises_is_its_callers():
    patient = Patient()

    def missing():
        raise NotFoundError("no such thing")

    def late():
        raise TimeoutError("of its own")

    assert patient.call(lambda: 5) == 5
    with pytest.raises(NotFoundError, match="no such thing"):
        patient.call(missing)
    with pytest.raises(TimeoutError, match="of its own"):
        patient.call(late)


def test_calls_that_hang_are_left_alone_and_counted():
    patient, go, ended = Patient(patience=0.0, most=2), threading.Event(), threading.Semaphore(0)

    def hang():
        go.wait()
        ended.release()

    for _ in range(2):
        with pytest.raises(UnavailableError, match="no answer in 0 seconds"):
            patient.call(hang)
    with pytest.raises(UnavailableError, match="2 calls have not ended yet"):
        patient.call(lambda: None)
    go.set()
    assert ended.acquire()
    assert ended.acquire()


def test_a_call_for_which_there_is_no_thread_does_not_count(monkeypatch):
    patient = Patient(most=1)

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="no thread can be started for patient"):
                patient.call(lambda: 5)
    assert patient.call(lambda: 5) == 5
