"""`subscribe(callback)`: each WAL once in order, again after an error, and an end with the datamanager."""

import logging
import queue
import threading

import pytest

import agola_core
from agola_core import BadRequestError, CompactedError, FencedError, Options, Put, Sequence

WAIT = 30


def open_store(path, **options):
    return agola_core.open(path, data_types=["note"], options=Options(background=False, **options))


def test_every_wal_comes_once_and_in_order_until_the_end(tmp_path):
    got = queue.Queue()
    with open_store(tmp_path) as dm:
        first = dm.write_wal([Put("note", "a", b"0")])
        with dm.subscribe(lambda event: got.put(("new", event.sequence.counter))) as subscriber:
            for number in range(1, 6):
                dm.write_wal([Put("note", "a", b"%d" % number)])
            assert [got.get(timeout=WAIT) for _ in range(5)] == [("new", number) for number in range(2, 7)]
            assert "running" in repr(subscriber)
        assert subscriber.position == dm.sequence
        assert "closed" in repr(subscriber)
        subscriber.close()
        dm.write_wal([Put("note", "a", b"6")])
        old = dm.subscribe(lambda event: got.put(("old", event.sequence.counter)), after=first.sequence)
        assert [got.get(timeout=WAIT) for _ in range(6)] == [("old", number) for number in range(2, 8)]
    assert "closed" in repr(old)
    assert old.error is None
    assert got.empty()


def test_a_function_that_fails_gets_the_same_wal_again(tmp_path, caplog):
    calls = queue.Queue()
    failing = threading.Event()
    failing.set()

    def callback(event):
        calls.put(event.sequence.counter)
        if failing.is_set():
            raise FencedError("not the feed's, the function's own")

    with open_store(tmp_path) as dm, dm.subscribe(callback) as subscriber:
        dm.write_wal([Put("note", "a", b"")])
        assert [calls.get(timeout=WAIT) for _ in range(2)] == [1, 1]
        assert subscriber.failures
        assert subscriber.position.counter == 0
        failing.clear()
        dm.write_wal([Put("note", "b", b"")])
        while calls.get(timeout=WAIT) != 2:
            pass
    assert subscriber.error is None
    assert "loop subscribers-subscribe failed" in caplog.text


def test_a_function_may_close_it_and_the_datamanager(tmp_path):
    done = threading.Event()
    dm = open_store(tmp_path)

    def callback(event):
        subscriber.close()
        dm.close()
        done.set()

    subscriber = dm.subscribe(callback)
    dm.write_wal([Put("note", "a", b"")])
    assert done.wait(WAIT)


def test_it_says_why_it_ended_by_itself(tmp_path, caplog):
    ended = threading.Event()

    class Ends(logging.Handler):
        def emit(self, record):
            if "a subscriber has ended" in record.getMessage():
                ended.set()

    handler = Ends()
    logging.getLogger("agola_core").addHandler(handler)
    try:
        with open_store(tmp_path) as dm, (tmp_path / "export").open("w+b") as file:
            dm.write_wal([Put("note", "a", b"")])
            dm.export(file)
            file.seek(0)
            subscriber = dm.subscribe(lambda event: None)
            dm.import_(file)
            assert ended.wait(WAIT)
            subscriber._loop.join(WAIT)
            assert isinstance(subscriber.error, FencedError)
            assert "ended by FencedError" in repr(subscriber)
    finally:
        logging.getLogger("agola_core").removeHandler(handler)


def test_what_is_wrong_is_said_at_once(tmp_path):
    with open_store(tmp_path) as dm:
        with pytest.raises(BadRequestError, match="subscribe takes a function"):
            dm.subscribe("print")
        with pytest.raises(CompactedError):
            dm.subscribe(print, after=Sequence(1, 7))
        with pytest.raises(FencedError):
            dm.subscribe(print, after=Sequence(7, 1))
        assert repr(dm).startswith("<DataManager of note at 0000000000001-0000000000000 in PosixStorage('/")
        assert "SQLiteCoordinator('/" in repr(dm)
        with dm.snapshot() as snapshot, dm.watch() as feed:
            assert repr(snapshot) == f"<Snapshot at {dm.sequence}>"
            assert repr(feed) == f"<Feed at {dm.sequence}>"
        assert "(closed)" in repr(snapshot)
        assert "(closed)" in repr(feed)
        assert repr(dm.mapping("note")) == f"<ObjectMapping 'note' of {dm!r}>"
    assert "closed" in repr(dm)
    with agola_core.open(tmp_path, at=Sequence(1, 0)) as past:
        assert repr(past).startswith("<PastStore of note at 0000000000001-0000000000000 in Posix")
