"""A store knows the types of its objects: tools open it by them, and another application is refused."""

import io

import pytest

import agola_core
from agola_core import BadRequestError, NotFoundError, Options, Put

QUIET = Options(background=False)


@pytest.fixture
def notes(tmp_path):
    """Return the directory of a store whose application added a type after its first checkpoint."""
    path = tmp_path / "notes"
    with agola_core.open(path, data_types=["note"], options=QUIET) as dm:
        dm.write_wal([Put("note", "n1", b"hello")])
        dm.checkpoint(force=True)
    with agola_core.open(path, data_types=["note", "task"], options=QUIET) as dm:
        dm.write_wal([Put("task", "t1", b"write")])
        dm.sync()
    return path


def test_a_store_opens_with_the_types_that_it_has(notes):
    with agola_core.open(notes) as dm:
        assert dm.data_types == ("note", "task")
        assert dm.read_object("task", "t1")[0] == b"write"
        moment = dm.sequence
        dm.write_wal([Put("note", "n2", b"")])
        with pytest.raises(BadRequestError, match="unknown data type 'other'"):
            dm.read_object("other", "x")
    with agola_core.open(notes, at=moment) as past:
        assert past.data_types == ("note", "task")


def test_a_store_that_is_not_there_is_not_made_without_types(tmp_path):
    with pytest.raises(NotFoundError, match="no store in"):
        agola_core.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(NotFoundError, match="there is no store"):
        agola_core.open(storage=str(tmp_path / "storage"), coordinator=str(tmp_path / "c.db"))


def test_another_application_is_refused(notes):
    with pytest.raises(BadRequestError, match="the types note, task, none of which is among run, runconfig"):
        agola_core.open(notes, data_types=["run", "runconfig"])
    with agola_core.open(notes) as dm:
        assert dm.stored_types == ("note", "task")


def test_types_of_wals_that_a_recovery_folds_are_known(notes):
    for file in notes.glob("coordinator.db*"):
        file.unlink()
    backup = io.BytesIO()
    with agola_core.open(notes) as dm:
        assert dm.data_types == ("note", "task")
        dm.export(backup)
    assert b'"t1"' in backup.getvalue()


def test_types_of_wals_that_a_repair_folds_are_known(notes):
    with agola_core.open(notes, options=QUIET) as dm:
        dm.checkpoint(force=True)
    *_, manifest = sorted((notes / "storage").rglob("manifests/*"))
    manifest.write_bytes(b"damaged")
    assert [item.done for item in agola_core.repair(notes)] == [True]
    with agola_core.open(notes) as dm:
        assert dm.data_types == ("note", "task")


@pytest.mark.parametrize("wrong", ["note", [], ["a/b"], ["a", "a"]])
def test_wrong_types_make_nothing(tmp_path, wrong):
    with pytest.raises(BadRequestError):
        agola_core.open(tmp_path / "store", data_types=wrong)
    assert not (tmp_path / "store").exists()
