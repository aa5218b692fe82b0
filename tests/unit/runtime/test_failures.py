"""What the log says of failures that nobody is told of."""

import logging
import threading

import pytest

from agola_core.errors import DeadlineError, RecoveryError, UnavailableError
from agola_core.runtime.threads.supervisor import Supervisor
from agola_core.runtime.threads.work_queue import WorkQueue
from agola_http.protocol.errors import describe


def _in_a_loop(error):
    again = threading.Event()
    rounds = iter([error])

    def work():
        for one in rounds:
            raise one
        again.set()

    supervisor = Supervisor("test")
    supervisor.loop("sync", work, max_backoff=0.0)
    again.wait()
    supervisor.stop()


def _in_a_queue(error):
    def work(_key):
        raise error

    queue = WorkQueue("test", threads=0)
    queue.add("a")
    assert queue.run_one(work)


def _in_a_request(error):
    describe(error, "GET /status")


def test_the_line_has_the_causes_each_once(caplog):
    error = UnavailableError("etcd is away: refused")
    error.__cause__ = UnavailableError("refused")
    error.__cause__.__cause__ = OSError("port\n 2379")
    _in_a_request(error)
    assert (
        caplog.records[0].getMessage().endswith(": UnavailableError: etcd is away: refused; cause: OSError: port 2379")
    )


@pytest.mark.parametrize("fail", [_in_a_loop, _in_a_queue, _in_a_request])
@pytest.mark.parametrize(
    ("error", "is_away"),
    [
        (UnavailableError("etcd cannot be reached"), True),
        (DeadlineError("etcd did not answer within 5 s"), True),
        (RecoveryError("etcd was restored"), True),
        (ZeroDivisionError("division by zero"), False),
    ],
    ids=repr,
)
def test_a_backend_that_is_away_takes_one_line_and_a_defect_its_traceback(caplog, fail, error, is_away):
    with caplog.at_level(logging.INFO):
        fail(error)
    (record,) = caplog.records
    text = caplog.handler.format(record)
    assert record.levelno == logging.ERROR
    assert str(error) in text
    assert ("Traceback" in text) is not is_away
    with caplog.at_level(logging.DEBUG):
        fail(error)
    assert "Traceback" in caplog.handler.format(caplog.records[-1])
