from concurrent.futures import ThreadPoolExecutor

from notes import Notes

import agola_core
from agola_core.runservice.model.requests import RunQuery


def append(directory, line):
    with agola_core.open(directory, data_types=["note"]) as store:
        Notes(store).append("n", line)


def test_a_note_grows(agola_store):
    notes = Notes(agola_store)
    notes.append("n", "one")
    assert notes.append("n", "two") == "one\ntwo\n"


def test_no_line_is_lost(agola_store):
    notes = Notes(agola_store)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: notes.append("n", str(number)), range(40)))
    lines = agola_store.read_object("note", "n")[0].decode().split()
    assert sorted(lines, key=int) == [str(number) for number in range(40)]


def test_a_committed_line_survives_a_crash(agola_crash, tmp_path):
    assert agola_crash("commit.after-txn", append, str(tmp_path), "kept").crashed
    with agola_core.open(tmp_path, data_types=["note"]) as store:
        assert store.read_object("note", "n")[0] == b"kept\n"


def test_an_uncommitted_line_is_not_there_after_a_crash(agola_crash, tmp_path):
    assert agola_crash("commit.before-txn", append, str(tmp_path), "lost").crashed
    with agola_core.open(tmp_path, data_types=["note"]) as store:
        assert list(store.list_objects("note")) == []


def test_a_service_answers(agola_runservice):
    assert agola_runservice.client().list_runs(RunQuery()) == []


def test_notes_on_a_bucket_and_an_etcd(agola_s3, agola_etcd):
    with agola_core.open(storage=agola_s3.url(), coordinator=agola_etcd.url(), data_types=["note"]) as store:
        assert Notes(store).append("n", "one") == "one\n"
