"""What several tests of the etcd coordinator use."""

import threading
import time

from agola_core.coordinator import PutOp
from agola_core.errors import UnavailableError, UnknownOutcomeError


def put(coordinator, key, value=b""):
    return coordinator.txn([], [PutOp(key, value)]).revision


def eventually(attempt, errors=UnavailableError, seconds=30):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except errors:
            if time.monotonic() > deadline:
                raise


def eventually_true(holds, seconds=60):
    """Wait until something holds, as nothing tells when."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.01)


def settled_put(coordinator, key, value=b""):
    """Write a key that is not there yet, also when answers are lost; return its revision."""

    def attempt():
        try:
            return put(coordinator, key, value)
        except UnknownOutcomeError:
            item = eventually(lambda: coordinator.get(key))
            if item is None:
                raise UnavailableError("not applied") from None
            return item.mod_revision

    return eventually(attempt)


def in_background(work):
    outcome = []

    def run():
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome
