"""The database with its context, and the readdb that follows a store."""

import threading
from typing import NamedTuple

import msgspec
import pytest

import agola_core
from agola_core import (
    BadRequestError,
    ClosedError,
    CorruptionError,
    DeadlineError,
    Delete,
    FormatError,
    NotFoundError,
    Options,
    Put,
)
from agola_core.db import Database
from agola_core.readdb import ReadDB
from agola_core.runtime.context import Context

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


class Row(NamedTuple):
    id: str
    size: int


@pytest.fixture
def database(tmp_path):
    database = Database(tmp_path / "db", ["CREATE TABLE t (id TEXT PRIMARY KEY, size INTEGER NOT NULL)"])
    yield database
    database.close()


def insert(name, size=1):
    return lambda tx: tx.execute("INSERT INTO t VALUES (?, ?)", (name, size))


def names(database):
    return database.read(Context(), lambda tx: [row.id for row in tx.query(Row, "SELECT * FROM t ORDER BY id")])


def test_transactions_commit_or_roll_back_whole(database):
    assert database.do(Context(), insert("a", 3)) == 1
    assert database.read(Context(), lambda tx: tx.query_one(Row, "SELECT * FROM t")) == Row("a", 3)

    class Panic(BaseException):
        pass

    def failing(tx):
        insert("b")(tx)
        raise Panic

    with pytest.raises(Panic):
        database.do(Context(), failing)
    assert names(database) == ["a"]
    with pytest.raises(NotFoundError):
        database.read(Context(), lambda tx: tx.query_one(Row, "SELECT * FROM t WHERE id = 'none'"))


def test_the_deadline_interrupts_a_running_statement_and_rolls_back(database):
    def endless(tx):
        insert("a")(tx)
        return list(tx.rows(ENDLESS))

    with pytest.raises(DeadlineError, match="deadline"):
        database.do(Context(timeout=0.05), endless)
    assert names(database) == []
    with pytest.raises(DeadlineError):
        database.read(Context(timeout=0.05), lambda tx: list(tx.rows(ENDLESS)))
    database.do(Context(), insert("b"))
    assert names(database) == ["b"]


def test_a_cancellation_interrupts_from_another_thread(database):
    context, started = Context(), threading.Event()

    def endless(tx):
        insert("a")(tx)
        started.set()
        return list(tx.rows(ENDLESS))

    def cancel():
        started.wait()
        while not done.wait(0.01):  # the statement may not have begun at the first call
            context.cancel()
            connection_interrupts()

    done = threading.Event()
    connection_interrupts = database._writer.interrupt
    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(DeadlineError, match="cancelled"):
        database.do(context, endless)
    done.set()
    thread.join()
    assert names(database) == []


def test_nested_use_is_refused_and_readers_are_not_blocked(database):
    def nested(tx):
        insert("a")(tx)
        assert names(database) == []
        database.do(Context(), insert("b"))

    with pytest.raises(BadRequestError, match="already"):
        database.do(Context(), nested)
    assert names(database) == []


def test_writers_take_turns_across_threads_and_connections(tmp_path, database):
    other = Database(tmp_path / "db", ["CREATE TABLE t (id TEXT PRIMARY KEY, size INTEGER NOT NULL)"])

    def write(target, prefix):
        for number in range(20):
            target.do(Context(), insert(f"{prefix}{number}"))

    threads = [
        threading.Thread(target=write, args=(target, prefix))
        for prefix, target in (("a", database), ("b", database), ("c", other))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(database)) == 60
    other.close()


def test_damaged_and_newer_files_are_told_apart(tmp_path):
    (tmp_path / "text").write_text("this is no database" * 100)
    with pytest.raises(CorruptionError):
        Database(tmp_path / "text")
    Database(tmp_path / "new", ["CREATE TABLE a (x)", "CREATE TABLE b (x)"]).close()
    with pytest.raises(FormatError, match="format 2, newer than 1"):
        Database(tmp_path / "new", ["CREATE TABLE a (x)"])


class Notes:
    """A projection as a user writes it."""

    name = "notes"
    version = 1
    data_types = ("note",)
    schema = "CREATE TABLE note (id TEXT PRIMARY KEY, size INTEGER NOT NULL)"

    def apply(self, tx, actions):
        for action in actions:
            if isinstance(action, Put):
                if action.data == b"poison":
                    raise ValueError("poison")
                tx.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (action.id, len(action.data)))
            else:
                tx.execute("DELETE FROM note WHERE id = ?", (action.id,))


@pytest.fixture
def store(tmp_path):
    with agola_core.open(
        tmp_path / "store", data_types=["note", "other"], options=Options(background=False, retain_wals=1)
    ) as dm:
        yield dm


def sizes(readdb):
    return readdb.read(Context(), lambda tx: dict(tx.rows("SELECT id, size FROM note")))


def test_a_readdb_is_built_then_follows(tmp_path, store):
    store.write_wal([Put("note", "a", b"1"), Put("other", "x", b"")])
    store.checkpoint(force=True)
    store.write_wal([Put("note", "b", b"22")])
    with ReadDB(store, tmp_path / "read.db", [Notes()]) as readdb:
        assert sizes(readdb) == {"a": 1, "b": 2}
        token = store.write_wal([Put("note", "c", b"333"), Delete("note", "a")])
        readdb.wait_for(token, 10)
        assert sizes(readdb) == {"b": 2, "c": 3}
        with pytest.raises(DeadlineError):
            readdb.wait_for(store.sequence.next(), 0.01)
    token = store.write_wal([Put("note", "d", b"")])
    with ReadDB(store, tmp_path / "read.db", [Notes()]) as readdb:
        readdb.wait_for(token, 10)
        assert sizes(readdb) == {"b": 2, "c": 3, "d": 0}


def test_reading_cannot_write(tmp_path, store):
    with ReadDB(store, tmp_path / "read.db", [Notes()]) as readdb:
        readdb.wait_for(store.write_wal([Put("note", "a", b"1")]), 10)
        with pytest.raises(BadRequestError, match="a reading transaction cannot write"):
            readdb.read(Context(), lambda tx: tx.execute("DELETE FROM note"))
        assert sizes(readdb) == {"a": 1}
    with ReadDB(store, tmp_path / "read.db", [Notes()]) as readdb:
        assert sizes(readdb) == {"a": 1}


def test_damage_other_versions_and_old_places_lead_to_a_rebuild(tmp_path, store):
    path = tmp_path / "read.db"
    store.write_wal([Put("note", "a", b"1")])
    ReadDB(store, path, [Notes()]).catch_up()

    class NewNotes(Notes):
        version = 2

    for spoil in (lambda: path.write_bytes(b"garbage" * 1000), path.unlink, lambda: None):
        spoil()
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        readdb = ReadDB(store, path, [NewNotes()])
        readdb.catch_up()
        assert sizes(readdb) == {"a": 1}
        readdb.close()
    for number in range(10):
        store.write_wal([Put("note", f"n{number}", b"")])
        store.checkpoint(force=True)
    store.clean_up()
    readdb = ReadDB(store, path, [NewNotes()])
    readdb.catch_up()
    assert len(sizes(readdb)) == 11
    readdb.close()


def test_an_import_rebuilds_the_readdb(tmp_path, store):
    import io

    store.write_wal([Put("note", "a", b"1")])
    exported = io.BytesIO()
    store.export(exported)
    store.write_wal([Put("note", "b", b"1")])
    readdb = ReadDB(store, tmp_path / "read.db", [Notes()])
    readdb.catch_up()
    assert set(sizes(readdb)) == {"a", "b"}
    exported.seek(0)
    store.import_(exported)
    readdb.catch_up()
    assert set(sizes(readdb)) == {"a"}
    readdb.close()


def test_what_a_projection_refuses_is_set_aside(tmp_path, store, caplog):
    store.write_wal([Put("note", "a", b"poison"), Put("note", "b", b"2")])
    readdb = ReadDB(store, tmp_path / "read.db", [Notes()])
    readdb.catch_up()
    assert "1 actions set aside" in repr(readdb)
    assert "does not exist" not in caplog.text  # that the file was not there yet is no cause
    store.write_wal([Put("note", "c", b"3"), Put("note", "d", b"poison")])
    readdb.catch_up()
    assert "2 actions set aside" in repr(readdb)
    assert sizes(readdb) == {"b": 1, "c": 1}
    rows = readdb.read(Context(), lambda tx: list(tx.rows("SELECT id, error FROM readdb_quarantine")))
    assert rows == [("a", "poison"), ("d", "poison")]
    assert len(caplog.records) == 2
    readdb.close()
    readdb = ReadDB(store, tmp_path / "read.db", [Notes()])
    readdb.catch_up()
    assert "2 actions set aside" in repr(readdb)
    readdb.close()


@pytest.mark.parametrize("wrong", ["SELECT nope FROM size", "SELECT * FROM size WHERE id = 'nope'"])
def test_a_wrong_statement_of_a_projection_sets_its_action_aside(tmp_path, store, wrong):
    class Wrong(Sizes):
        def apply(self, tx, actions):
            tx.query_one(Row, wrong)

    store.write_wal([Put("note", "a", b"")])
    readdb = ReadDB(store, tmp_path / "read.db", [Wrong()])
    readdb.catch_up()
    store.write_wal([Put("note", "b", b"")])
    readdb.catch_up()
    assert "2 actions set aside" in repr(readdb)
    readdb.close()


def test_arguments_of_a_wrong_type_are_named(tmp_path, store, database):
    readdb = ReadDB(store, tmp_path / "read.db", [Sizes()])
    with readdb:
        for call in (readdb.read, database.read, database.do):
            for context in (None, 5):
                with pytest.raises(BadRequestError, match="a context is a Context"):
                    call(context, lambda tx: None)
            with pytest.raises(BadRequestError, match="a function of a transaction"):
                call(Context(), None)
        for place in (None, 7):
            with pytest.raises(BadRequestError, match="a place is a token"):
                readdb.wait_for(place)
        with pytest.raises(BadRequestError, match="a timeout is"):
            readdb.wait_for(store.sequence, timeout="x")
        with pytest.raises(BadRequestError, match="a context is a Context"):
            readdb.rebuild(5)
    with pytest.raises(ClosedError), readdb:
        pytest.fail("entered")


def test_a_wrong_query_is_named(database):
    database.do(Context(), insert("a"))

    class Other(NamedTuple):
        name: str

    for sql, record, message in (
        ("SELECT nope FROM t", Row, "a statement is wrong: no such column: nope"),
        ("SELECT * FROM t WHERE id = ?", Row, "a statement is wrong: "),
        ("SELECT * FROM t", Other, "a row with id, size is no "),
        ("SELECT 'x' AS id, 'y' AS size", Size, "a row with id, size is no "),
    ):
        with pytest.raises(BadRequestError, match=message):
            database.read(Context(), lambda tx, sql=sql, record=record: tx.query(record, sql))
    for write in (
        lambda tx: tx.execute("DELETE FROM nope"),
        lambda tx: tx.executemany("INSERT INTO t VALUES (?)", [(1,)]),
    ):
        with pytest.raises(BadRequestError, match="a statement is wrong"):
            database.do(Context(), write)
    with pytest.raises(BadRequestError, match="a statement is wrong"):
        database.read(Context(), lambda tx: list(tx.rows("SELECT nope FROM t")))


class Size(msgspec.Struct):
    id: str
    size: int


class Sizes:
    name, version, data_types, schema = "sizes", 1, ("note",), "CREATE TABLE size (id TEXT PRIMARY KEY, size INTEGER)"

    def apply(self, tx, actions):
        pass


@pytest.mark.parametrize("what", ["database", "text", "directory", "link"])
def test_what_is_no_readdb_is_left_alone(tmp_path, what):
    path, target = tmp_path / "mine", tmp_path / "precious"
    if what == "directory":
        path.mkdir()
    elif what == "text":
        path.write_text("precious")
    else:
        database = Database(path if what == "database" else target, ["CREATE TABLE precious (id TEXT)"])
        database.close()
        if what == "link":
            path.symlink_to(target)
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    with agola_core.open(tmp_path / "data", data_types=["note"]) as dm:
        with pytest.raises(BadRequestError, match="mine is no readdb"):
            ReadDB(dm, path, [Sizes()])
        with pytest.raises(BadRequestError, match=r"coordinator\.db is no readdb"):
            ReadDB(dm, tmp_path / "data" / "coordinator.db", [Sizes()])
        dm.write_wal([Put("note", "a", b"")])
    assert {file: file.read_bytes() for file in before} == before
    assert path.is_symlink() is (what == "link")


def test_types_of_a_projection_are_a_list(tmp_path):
    class Wrong(Sizes):
        data_types = "note"

    with agola_core.open(tmp_path, data_types=["note"]) as dm, pytest.raises(BadRequestError, match="list of types"):
        ReadDB(dm, tmp_path / "r.db", [Wrong()])
    with pytest.raises(BadRequestError, match="list of data types"):
        agola_core.open_events(tmp_path / "events", data_types="note")
    assert not (tmp_path / "events").exists()
