"""Data on disk is its owner's alone, whatever the umask; root leaves it to its owner; what is open is told."""

import contextlib
import ctypes
import logging
import os
import stat

import pytest
from click.testing import CliRunner

import agola_core
from agola_cli.main import cli
from agola_core import Options, Put, private
from agola_core.readdb import ReadDB
from agola_core.standalone import Standalone, open_store

OWNER = 54321
_SET_DUMPABLE = 4
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root writes in the place of another user")


class Nothing:
    name, version, data_types, schema = "nothing", 1, ("n",), "CREATE TABLE t (id TEXT)"

    def apply(self, tx, actions):
        pass


def modes(directory):
    """Return what below a directory others may do something with, and its mode."""
    found = {}
    for path in (directory, *directory.rglob("*")):
        status = path.lstat()
        if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o077:
            found[str(path.relative_to(directory))] = oct(stat.S_IMODE(status.st_mode))
    return found


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture(autouse=True)
def told(monkeypatch):
    monkeypatch.setattr(private, "_told", set())


def use(directory, data=b""):
    """Write to a store and a readdb below a directory, through a checkpoint; return what is not private, or root's."""
    with agola_core.open(directory, data_types=["n"], options=Options(background=False)) as dm:
        dm.write_wal([Put("n", "a", os.urandom(100_000))])
        dm.write_wal([Put("n", "b", data)])
        dm.checkpoint(force=True)
        with ReadDB(dm, directory / "copies/readdb.db", [Nothing()]):
            return modes(directory), [path for path in directory.rglob("*") if path.lstat().st_uid == 0]


def test_what_a_store_makes_is_private_whatever_the_umask(tmp_path, umask):
    wide, _ = use(tmp_path / "some/data")
    assert wide == {}
    assert modes(tmp_path / "some") == {}


def test_what_a_service_makes_is_private_whatever_the_umask(tmp_path, umask):
    with Standalone(tmp_path / "data", with_executor=False):
        assert modes(tmp_path / "data") == {}


def test_a_storage_that_is_shared_with_a_group_stays_so(tmp_path, umask):
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o2770)
    storage = agola_core.open_storage(root)
    storage.write("a/b", b"1")
    for path in (root / "data/a", root / "data", root / "tmp"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o2770
    assert stat.S_IMODE((root / "data/a/b").stat().st_mode) == 0o660


@contextlib.contextmanager
def acting_as_owner(directory):
    for path in directory.parents:
        with contextlib.suppress(PermissionError, OSError):
            path.chmod(path.stat().st_mode | 0o011)  # so that the owner gets there
    os.setegid(OWNER)
    os.seteuid(OWNER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@needs_root
def test_root_leaves_everything_to_the_owner_of_the_directory(tmp_path):
    """Root wrote and made a checkpoint once in a store of another user, who was refused from then on."""
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    os.chown(directory, OWNER, OWNER)
    with acting_as_owner(directory):
        use(directory, b"1")
    wide, made_by_root = use(directory, b"2")
    assert wide == {}
    assert all(path.is_symlink() for path in made_by_root)  # which anybody may follow
    with acting_as_owner(directory):
        use(directory, b"3")
        with agola_core.open(directory, data_types=["n"]) as dm:
            assert dm.read_object("n", "b")[0] == b"3"
            assert dm.verify() == []


@needs_root
def test_root_runs_something_and_the_owner_of_the_directory_goes_on(tmp_path, monkeypatch):
    """`sudo agola-core run` left an executor's directory that its owner could not use."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))  # which may lie in a checkout itself
    tmp_path.chmod(0o755)
    os.chown(tmp_path, OWNER, OWNER)
    tree, data = tmp_path / "tree", tmp_path / "new/data"
    tree.mkdir(mode=0o755)
    (tree / "run.json").write_text('{"runs": [{"name": "r", "tasks": [{"name": "t", "steps": [{"run": "id -u"}]}]}]}')
    tree.chmod(0o755)
    command = ["run", str(tree / "run.json"), "--data-dir", str(data)]
    first = CliRunner().invoke(cli, command)
    assert (first.exit_code, "t | 0" in first.output) == (0, True), first.output
    assert not {name for name in modes(data) if not name.startswith("executor/tasks/")} - {"executor", "executor/tasks"}
    (data / "executor/tasks/killed").mkdir(0o711)  # what a run leaves that is killed
    with acting_as_owner(data / "x"):
        pass  # who gets there now
    child = os.fork()  # and not a new program: the owner may not be able to read this one
    if child == 0:
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0)  # loaded before the user changes
        os.setgroups([])
        os.setgid(OWNER)
        os.setuid(OWNER)
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 1)  # so that it finds itself in /proc, as a program of its own does
        os.chdir(tmp_path)
        os.environ["HOME"] = str(tmp_path)
        second = CliRunner().invoke(cli, command)
        (tmp_path / "output").write_text(f"{second.exit_code} {second.output} {second.exception!r}")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    output = (tmp_path / "output").read_text()
    assert (output[:2], f"t | {OWNER}" in output) == ("0 ", True), output
    assert (data / "executor/tasks/killed").stat().st_uid == 0  # left as it is


@pytest.mark.parametrize("umask", [0o077], indirect=True)
def test_users_of_steps_pass_through_whatever_the_umask(tmp_path, umask):
    with Standalone(tmp_path / "data"):
        pass
    for path in (tmp_path / "data/executor", tmp_path / "data/executor/tasks"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o711


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_data_directory_that_others_may_read_is_told_once(tmp_path, caplog):
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(0o755)
    tmp_path.chmod(0o711)
    for _ in range(2):
        open_store(directory).close()
    (warning,) = warnings(caplog)
    assert f"chmod 700 {directory}" in warning
    assert "0755" in warning


def test_a_file_of_an_earlier_release_is_told(tmp_path, caplog):
    """Its directory may only be passed through, and the files in it were made under the usual umask."""
    directory = tmp_path / "data"
    open_store(directory).close()
    directory.chmod(0o711)
    (directory / "coordinator.db").chmod(0o644)
    open_store(directory).close()
    (warning,) = warnings(caplog)
    assert f"chmod 600 {directory}/coordinator.db" in warning


@pytest.mark.parametrize("mode", [0o700, 0o711])
def test_a_private_directory_is_no_matter(tmp_path, caplog, mode):
    tmp_path.chmod(0o711)
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(mode)
    open_store(directory).close()
    assert warnings(caplog) == []
