"""Backups come back: on a new machine by one command, whatever the store's types, and as the pages say it."""

import io
import json

import pytest

import agola_core
from agola_cli.connect.store import StoreOptions
from agola_cli.store.destination import Destination
from agola_core import Options, Put
from agola_core.errors import BadRequestError
from agola_core.runtime.progress import ignore
from tests.support.pages import run_page


@pytest.fixture
def used(tree):
    tree.configure("runs: [{name: r, tasks: [{name: t, steps: [{run: echo hello}]}]}]")
    assert tree.run("run", ".").returncode == 0
    return tree


@pytest.fixture
def notes(tmp_path):
    """Return the directory of a library's store."""
    path = tmp_path / "notes"
    with agola_core.open(path, data_types=["note", "task"], options=Options(background=False)) as dm:
        dm.write_wal([Put("note", "n1", b"hello"), Put("task", "t1", b"write")])
    return path


def test_the_page_on_backup_is_true(used, tmp_path):
    done = run_page("backup.md", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    assert "checked: 1 run," in done.stderr
    assert done.stderr.count("imported: 1 run, 1 runconfig, 1 runcounter") == 2
    (run,) = json.loads(used.run("runs", "list", "--json", "--data-dir", tmp_path / "new").stdout)
    assert run["state"] == "success"


def test_the_steps_of_maintenance_work_before_anything_has_run(used, tmp_path):
    backup, new = tmp_path / "backup", tmp_path / "deep/new"
    assert used.run("export", "-o", backup).returncode == 0
    on = used.run("maintenance", "on", "--data-dir", new)
    assert on.returncode == 0
    assert f"{new} is a new data directory" in on.stderr
    assert used.run("import", backup, "--data-dir", new).returncode == 0
    refused = used.run("run", ".", env={"AGOLA_DATA_DIR": str(new)})
    assert "maintenance mode" in refused.stderr
    assert used.run("maintenance", "off", "--data-dir", new).returncode == 0
    assert len(json.loads(used.run("runs", "list", "--json", "--data-dir", new).stdout)) == 1


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_a_bad_backup_leaves_nothing_behind(used, tmp_path, there):
    backup, new = tmp_path / "backup", tmp_path / "new"
    assert used.run("export", "-o", backup).returncode == 0
    backup.write_bytes(backup.read_bytes()[:-20])
    if there:
        new.mkdir()
    for arguments in ((), ("--dry-run",)):
        refused = used.run("import", backup, "--data-dir", new, *arguments)
        assert refused.returncode == 2
        assert "nothing was imported" in refused.stderr
        assert new.exists() is there
        assert not there or not list(new.iterdir())


def test_what_others_wrote_into_a_new_store_outlives_a_bad_backup(notes, tmp_path):
    exported, new = io.BytesIO(), tmp_path / "new"
    with agola_core.open(notes, data_types=["note"], options=Options(background=False)) as dm:
        dm.export(exported)
    place = Destination(StoreOptions(new))

    class Stream(io.BytesIO):
        """An export that is cut short, and while it is read another process uses the store."""

        def read(self, size=-1):
            data = super().read(size)
            if not data and (new / "storage").exists():
                with agola_core.open(new, data_types=["note", "task"], options=Options(background=False)) as other:
                    other.write_wal([Put("note", "mine", b"acknowledged")])
            return data

        readinto = None

    with pytest.raises(BadRequestError, match="nothing was imported"):
        place.create(Stream(exported.getvalue()[:-20]), ignore)
    with agola_core.open(new, options=Options(background=False)) as dm:
        assert dm.read_object("note", "mine")[0] == b"acknowledged"


def test_a_library_s_store_is_moved_and_checked_by_the_commands(tree, notes, tmp_path):
    for command in ("status", "checkpoint", "checkpoints", "gc", "verify"):
        done = tree.run(command, "--data-dir", notes)
        assert done.returncode == 0, done.stderr
    backup = tmp_path / "notes.zst"
    assert tree.run("export", "--data-dir", notes, "-o", backup).returncode == 0
    done = tree.run("import", backup, "--data-dir", tmp_path / "copy", "--json")
    assert json.loads(done.stdout)["entries"] == {"note": 1, "task": 1}
    with agola_core.open(tmp_path / "copy") as dm:
        assert dm.read_object("task", "t1")[0] == b"write"
        dm.write_wal([Put("note", "n2", b"late")])
    assert tree.run("import", "--yes", backup, "--data-dir", tmp_path / "copy").returncode == 0
    with agola_core.open(tmp_path / "copy") as dm:
        assert [name for name, _ in dm.list_objects("note")] == ["n1"]
    with agola_core.open(tmp_path / "less", data_types=["note"]):
        pass
    assert tree.run("import", "--yes", backup, "--data-dir", tmp_path / "less").returncode == 0
    assert "--include" in tree.run("export", "--data-dir", notes, "--include", "logs").stderr
    agola = tree.run("export", "--data-dir", notes, "--format", "agola")
    assert agola.returncode == 0


def test_applications_are_not_mixed_up(used, notes, tmp_path):
    backup, runs = tmp_path / "notes.export", tmp_path / "runs.export"
    assert used.run("export", "-o", runs).returncode == 0
    assert used.run("export", "--data-dir", notes, "-o", backup).returncode == 0
    for file, arguments in ((backup, ()), (runs, ("--data-dir", notes))):
        for option in ("--yes", "--dry-run"):
            refused = used.run("import", option, file, *arguments)
            assert refused.returncode == 2
            assert "of different applications; nothing was imported" in refused.stderr
    for command in (("run", "."), ("runs", "list"), ("serve", "--port", "0")):
        refused = used.run(*command, env={"AGOLA_DATA_DIR": str(notes)})
        assert refused.returncode == 2
        assert "the store holds objects of the types note, task" in refused.stderr
    with pytest.raises(agola_core.BadRequestError, match="belongs to another application"):
        agola_core.open(used.data_dir, data_types=["note"])
    with agola_core.open(notes) as dm:
        assert dm.stored_types == ("note", "task")


def test_a_lost_machine_is_recovered_from_its_storage(used, tmp_path):
    storage = used.data_dir / "storage"
    found = used.run("verify", "--storage", storage)
    assert found.returncode == 0, found.stderr
    done = used.run("recover", "--storage", storage, "--data-dir", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    listed = used.run("runs", "list", "--json", "--storage", storage, "--data-dir", tmp_path / "new")
    assert len(json.loads(listed.stdout)) == 1
