"""The database's promises where two callers meet: turns, locks of other processes, contexts, damage under a reader."""

import subprocess
import sys
import textwrap
import threading

import apsw
import pytest

from agola_core import BadRequestError, CorruptionError, DeadlineError, NotFoundError, UnavailableError
from agola_core.db import Database, Purpose
from agola_core.db import database as module
from agola_core.runtime.context import Context

SCHEMA = ["CREATE TABLE t (id TEXT PRIMARY KEY)"]


@pytest.fixture
def database(tmp_path):
    opened = Database(tmp_path / "db", SCHEMA)
    yield opened
    opened.close()


def insert(name):
    return lambda tx: tx.execute("INSERT INTO t (id) VALUES (?)", (name,))


def ids(database):
    return database.read(Context(), lambda tx: [row[0] for row in tx.rows("SELECT id FROM t ORDER BY id")])


@pytest.fixture
def busy(database):
    """A thread that is inside a transaction until it is let go."""
    inside, leave = threading.Event(), threading.Event()

    def work(tx):
        insert("busy")(tx)
        inside.set()
        leave.wait(60)

    thread = threading.Thread(target=lambda: database.do(Context(), work))
    thread.start()
    inside.wait(60)
    yield leave
    leave.set()
    thread.join()


def test_waiting_for_a_turn_ends_with_the_context(database, busy):
    with pytest.raises(DeadlineError, match="deadline"):
        database.do(Context(timeout=0.05), insert("late"))
    context, waiting = Context(), threading.Event()
    errors = []

    def wait():
        waiting.set()
        try:
            database.do(context, insert("cancelled"))
        except DeadlineError as error:
            errors.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait(60)
    context.cancel()
    thread.join(60)
    assert errors == ["the caller cancelled"]
    assert ids(database) == []  # readers are not blocked, and see nothing that is not committed
    busy.set()


def test_a_lock_of_another_process_is_tried_twenty_times_then_reported(tmp_path, database, monkeypatch):
    script = textwrap.dedent("""
        import apsw, sys
        connection = apsw.Connection(sys.argv[1])
        connection.execute("BEGIN IMMEDIATE")
        print("locked", flush=True)
        sys.stdin.read()
    """)
    other = subprocess.Popen(
        [sys.executable, "-c", script, database.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "locked\n"
    tries = []
    database._writer.set_busy_handler(lambda _: False)  # the pause between two tries is SQLite's
    original = module.Database._retried

    def counted(self, work, context=None):
        def one():
            tries.append(1)
            return work()

        return original(self, one, context)

    monkeypatch.setattr(module.Database, "_retried", counted)
    with pytest.raises(UnavailableError, match=r"locked.*, 20 tries long"):
        database.do(Context(), insert("a"))
    assert len(tries) == 20
    context = Context()
    context.cancel()
    with pytest.raises(DeadlineError):
        database.do(context, insert("a"))
    other.communicate("")
    other.wait()
    database.do(Context(), insert("a"))
    assert ids(database) == ["a"]


def test_errors_of_a_statement_stay_what_they_are_and_roll_back(database):
    database.do(Context(), insert("a"))

    def twice(tx):
        insert("b")(tx)
        insert("a")(tx)

    with pytest.raises(apsw.ConstraintError):
        database.do(Context(), twice)
    assert ids(database) == ["a"]
    with pytest.raises(NotFoundError):
        database.read(Context(), lambda tx: tx.query_one(tuple, "SELECT 1 WHERE 0"))


def test_a_transaction_in_a_transaction_of_the_same_thread_is_refused_in_every_form(database):
    def nested(tx):
        with pytest.raises(BadRequestError, match="runs in this thread already"):
            database.do(Context(), insert("inner"))
        return insert("outer")(tx)

    assert database.do(Context(), nested) == 1
    assert ids(database) == ["outer"]


def test_the_settings_and_migrations_are_made_once(tmp_path):
    path = tmp_path / "db"
    Database(path, SCHEMA).close()
    with_more = Database(path, [*SCHEMA, "ALTER TABLE t ADD COLUMN size INTEGER NOT NULL DEFAULT 7"])
    with_more.do(Context(), insert("a"))
    settings = {
        name: with_more.read(Context(), lambda tx, name=name: next(tx.rows(f"PRAGMA {name}"))[0])
        for name in ("journal_mode", "synchronous", "foreign_keys", "user_version")
    }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "user_version": 2}
    assert with_more.read(Context(), lambda tx: list(tx.rows("SELECT size FROM t"))) == [(7,)]
    with_more.close()
    with pytest.raises(BadRequestError, match="creates the tables is wrong"):
        Database(path, [*SCHEMA, "SELECT 1", "NO SQL"])
    copy = Database(path, [*SCHEMA, "SELECT 1"], Purpose.COPY)  # what failed changed nothing
    assert copy.read(Context(), lambda tx: next(tx.rows("PRAGMA synchronous"))[0]) == 0
    copy.close()


def test_damage_is_told_from_everything_else(tmp_path, database):
    database.do(Context(), lambda tx: tx.executemany("INSERT INTO t VALUES (?)", [(f"{n:0500}",) for n in range(500)]))
    database.close()
    data = bytearray((tmp_path / "db").read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    (tmp_path / "db").write_bytes(data)
    damaged = Database(tmp_path / "db", SCHEMA)
    with pytest.raises(CorruptionError, match="not an intact database"):
        ids(damaged)
    damaged.close()


@pytest.mark.parametrize(
    "write",
    [
        lambda tx: tx.execute("DELETE FROM t"),
        lambda tx: tx.executemany("INSERT INTO t VALUES (?)", [("b",)]),
        lambda tx: list(tx.rows("DELETE FROM t RETURNING id")),
        lambda tx: tx.query(dict, "UPDATE t SET id = 'b' RETURNING id"),
        lambda tx: tx.execute("DROP TABLE t"),
        lambda tx: tx.execute("PRAGMA user_version = 7"),
        lambda tx: tx.execute("PRAGMA query_only = OFF; DELETE FROM t"),
    ],
)
def test_a_reading_transaction_cannot_write(tmp_path, database, write):
    database.do(Context(), insert("a"))
    with pytest.raises(BadRequestError, match="a reading transaction cannot write"):
        database.read(Context(), write)
    assert ids(database) == ["a"]
    database.do(Context(), insert("b"))  # nothing is left locked
    database.close()
    again = Database(tmp_path / "db", SCHEMA)
    assert ids(again) == ["a", "b"]
    again.close()
