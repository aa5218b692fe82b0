"""When a readdb is built anew, and that its readers do not notice."""

import threading

import apsw
import pytest

import agola_core
from agola_core import CorruptionError, Options, Put
from agola_core.errors import DeadlineError
from agola_core.readdb import ReadDB
from agola_core.readdb import engine as module
from agola_core.runtime.context import Context


class Notes:
    name = "notes"
    version = 1
    data_types = ("note",)
    schema = "CREATE TABLE note (id TEXT PRIMARY KEY, size INTEGER NOT NULL)"

    def apply(self, tx, actions):
        for action in actions:
            tx.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (action.id, len(action.data)))


@pytest.fixture
def store(tmp_path):
    with agola_core.open(tmp_path / "store", data_types=["note"], options=Options(background=False)) as dm:
        dm.write_wal([Put("note", f"{number:04}", b"x" * number) for number in range(1000)])
        yield dm


def count(readdb, context=None):
    return readdb.read(context or Context(), lambda tx: next(tx.rows("SELECT count(*) FROM note"))[0])


def built(store, path, **options):
    readdb = ReadDB(store, path, [Notes()], **options)
    readdb.catch_up()
    return readdb


def files(path):
    return sorted(entry.name for entry in path.parent.iterdir() if entry.name.startswith(path.name))


def test_readers_go_on_with_the_old_file_while_a_new_one_takes_its_place(tmp_path, store):
    path = tmp_path / "read.db"
    with ReadDB(store, path, [Notes()]) as readdb:
        inside, leave = threading.Event(), threading.Event()
        seen = []

        def slow(tx):
            rows = tx.rows("SELECT id FROM note")
            seen.append(next(rows))
            inside.set()
            leave.wait(60)
            seen.extend(rows)

        thread = threading.Thread(target=lambda: readdb.read(Context(), slow))
        thread.start()
        inside.wait(60)
        old = path.resolve()
        readdb.rebuild()
        assert path.resolve() != old
        assert count(readdb) == 1000
        leave.set()
        thread.join()
        assert len(seen) == 1000
        assert [name for name in files(path) if not name.endswith(("-wal", "-shm"))] == [path.name, path.resolve().name]
        readdb.wait_for(store.write_wal([Put("note", "new", b"")]), 30)
        assert count(readdb) == 1001


def test_a_build_that_fails_or_is_given_up_leaves_the_old_file_in_use(tmp_path, store):
    path = tmp_path / "read.db"
    readdb = built(store, path)
    before = files(path)
    with pytest.raises(DeadlineError):
        readdb.rebuild(Context(timeout=0))
    assert files(path) == before
    assert count(readdb) == 1000
    readdb.close()


def test_closing_gives_a_long_build_up(tmp_path, store):
    begun = threading.Event()

    class Slow(Notes):
        def apply(self, tx, actions):
            begun.set()
            list(tx.rows("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"))

    readdb = ReadDB(store, tmp_path / "read.db", [Slow()])
    errors = []

    def start():
        try:
            readdb.start()
        except DeadlineError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    begun.wait(60)
    readdb.close()
    thread.join(60)
    assert len(errors) == 1
    assert files(tmp_path / "read.db") == []


def test_damage_that_a_reader_meets_is_healed(tmp_path, store):
    path = tmp_path / "read.db"
    built(store, path).close()
    file = path.resolve()
    data = bytearray(file.read_bytes())
    damaged = 0
    for page in range(3, len(data) // 4096):  # not the schema, nor the readdb's own tables
        if b"0500" in data[4096 * page : 4096 * (page + 1)]:
            data[4096 * page : 4096 * page + 2048] = b"\xa5" * 2048
            damaged += 1
    assert damaged
    file.write_bytes(data)
    unstarted = built(store, path)
    with pytest.raises(CorruptionError):
        unstarted.read(Context(), lambda tx: list(tx.rows("SELECT * FROM note")))
    unstarted.close()
    with ReadDB(store, path, [Notes()]) as readdb:
        rows = readdb.read(Context(timeout=60), lambda tx: list(tx.rows("SELECT * FROM note ORDER BY id")))
        assert rows == [(f"{number:04}", number) for number in range(1000)]
        assert path.resolve() != file


@pytest.mark.parametrize(
    "spoil",
    ["DROP TABLE readdb_position", "DELETE FROM readdb_position", "UPDATE readdb_position SET boot = 'another'"],
)
def test_a_file_that_is_not_certainly_right_is_built_anew(tmp_path, store, spoil):
    path = tmp_path / "read.db"
    built(store, path).close()
    file = path.resolve()
    connection = apsw.Connection(str(path))
    connection.execute(spoil)
    connection.close()
    readdb = built(store, path)
    assert path.resolve() != file
    assert count(readdb) == 1000
    readdb.close()


def test_a_file_that_is_right_is_used_again(tmp_path, store):
    path = tmp_path / "read.db"
    built(store, path).close()
    file = path.resolve()
    store.write_wal([Put("note", "new", b"")])
    readdb = built(store, path)
    assert path.resolve() == file
    assert count(readdb) == 1001
    readdb.close()


def test_a_gap_in_the_chain_leads_to_a_rebuild(tmp_path, store, monkeypatch):
    path = tmp_path / "read.db"
    readdb = built(store, path)
    original = module.ReadDB._waiting

    def lossy(self, feed):
        next(original(self, feed), None)  # one WAL is lost on its way
        return original(self, feed)

    monkeypatch.setattr(module.ReadDB, "_waiting", lossy)
    for number in range(3):
        store.write_wal([Put("note", f"gap{number}", b"")])
    readdb.catch_up()
    assert count(readdb) == 1003
    readdb.close()


def test_what_dead_builders_left_goes(tmp_path, store):
    path = tmp_path / "read.db"
    left = [path.with_name(f"{path.name}.999999999-0123abcd{side}") for side in ("", "-wal", "-shm", "-journal")]
    other = path.with_name(f"{path.name}.backup")
    for file in (*left, other):
        file.write_bytes(b"")
    built(store, path).close()
    assert not any(file.exists() for file in left)
    assert other.exists()


def test_the_progress_of_a_build_is_told(tmp_path, store):
    reports = []
    built(store, tmp_path / "read.db", progress=reports.append).close()
    assert (reports[-1].work, reports[-1].done, reports[-1].total, reports[-1].ended) == ("readdb", 1000, 1000, True)
    assert reports[-1].size == sum(range(1000))


def test_a_full_disk_is_no_refusal_of_a_projection(tmp_path, store):
    """What the machine cannot do now is not set aside as if the object were bad."""

    class Full(Notes):
        full = False

        def apply(self, tx, actions):
            if self.full:
                tx.execute("PRAGMA max_page_count = 1")
            super().apply(tx, actions)

    projection = Full()
    readdb = ReadDB(store, tmp_path / "read.db", [projection])
    readdb.catch_up()
    projection.full = True
    store.write_wal([Put("note", f"big{number:0200}", b"") for number in range(500)])
    with pytest.raises(agola_core.UnavailableError, match="full"):
        readdb.catch_up()
    projection.full = False
    readdb._database._writer.execute("PRAGMA max_page_count = 1000000")
    readdb.catch_up()
    assert count(readdb) == 1500
    assert readdb.read(Context(), lambda tx: list(tx.rows("SELECT * FROM readdb_quarantine"))) == []
    readdb.close()
