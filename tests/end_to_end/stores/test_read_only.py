"""Stores that cannot be written to: everything that only reads works, and nothing is made beside them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import traceback

import pytest

import agola_core
from agola_core import ForbiddenError, NotFoundError, Options, Put, UnavailableError
from agola_core.standalone import open_store

QUIET = Options(background=False)
MOUNTED = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts, and becomes other users")


def on_a_read_only_mount(directory, *command):
    """Run a command for which a directory is mounted read only, and nothing else is changed."""
    found = subprocess.run(
        ["unshare", "--mount", "sh", "-c", MOUNTED, directory, *command], capture_output=True, text=True, check=False
    )
    return found.returncode, found.stdout, found.stderr


def command(directory, *arguments):
    given = [sys.executable, "-m", "agola_cli", *arguments, "--data-dir", directory]
    code, output, error = on_a_read_only_mount(directory, *given)
    assert code == 0, error
    return output


def script(directory, text):
    code, output, error = on_a_read_only_mount(directory, sys.executable, "-c", textwrap.dedent(text), directory)
    assert code == 0, error
    return output


def tree(directory):
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


WRITE = """
    import os, signal, sys, agola_core
    from agola_core import Options, Put
    dm = agola_core.open(sys.argv[1], data_types=["note"], options=Options(background=False))
    dm.write_wal([Put("note", "a", b"1")])
    dm.checkpoint(force=True)
    dm.write_wal([Put("note", "b", b"2")])
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    dm.close()
"""


@pytest.fixture(params=["closed", "killed"])
def directory(tmp_path, request):
    """A store with a WAL that is in the coordinator alone; of a process that ended well, or was killed."""
    directory = tmp_path / "store"
    subprocess.run([sys.executable, "-c", textwrap.dedent(WRITE), directory, request.param], check=False)
    assert (directory / "coordinator.db-wal").exists() is (request.param == "killed")
    return directory


def test_a_store_is_read(directory):
    before = tree(directory)
    output = script(
        directory,
        """
        import io, sys, agola_core
        from agola_core import ForbiddenError, Put
        try:
            agola_core.open(sys.argv[1], data_types=["note"])
        except ForbiddenError as error:
            print(error)
        with agola_core.open(sys.argv[1], read_only=True) as dm:
            print(list(dm.list_objects("note")), dm.read_object("note", "b")[0], dm.status().sequence)
            with dm.snapshot() as snapshot:
                print(list(snapshot.scan("note")))
            print(len(dm.verify()), dm.export(io.BytesIO()).sequence == str(dm.refresh()))
            print([event.actions[0].id for event in [dm.watch(after=dm.checkpoints()[-1].sequence).next(0)]])
            for call in (
                lambda: dm.write_wal([Put("note", "c", b"")]),
                lambda: dm.write_wal([Put("note", "c", bytes(10_000_000))]),
                lambda: dm.checkpoint(force=True),
                dm.sync,
                dm.collect_garbage,
                lambda: dm.import_(io.BytesIO()),
            ):
                try:
                    call()
                    print("not refused")
                except ForbiddenError:
                    pass
        with agola_core.open(sys.argv[1], at=dm.sequence) as past:
            print(list(past.list_objects("note")))
        print(agola_core.verify(sys.argv[1], noted_by="ann"))
        """,
    ).splitlines()
    both = "[('a', b'1'), ('b', b'2')]"
    assert output == [
        f"the store in {str(directory)!r} cannot be written to: read_only=True reads it",
        f"{both} b'2' {output[1].split()[-1]}",
        both,
        "0 True",
        "['b']",
        both,
        "[]",
    ]
    assert tree(directory) == before


def test_the_commands_that_read(tmp_path):
    data_dir, sources = tmp_path / "data", tmp_path / "tree"
    sources.mkdir()
    config = "runs: [{name: r, tasks: [{name: t, runtime: {containers: [{image: x}]}, steps: [{run: echo hello}]}]}]"
    (sources / "config.yml").write_text(config)
    given = [sys.executable, "-m", "agola_cli", "run", sources / "config.yml", "--data-dir", data_dir]
    subprocess.run(given, capture_output=True, check=True)
    before = tree(data_dir)
    status = json.loads(command(data_dir, "status", "--json"))
    assert status["instances"] == []  # the command itself is none
    assert json.loads(command(data_dir, "checkpoints", "--json"))[-1]["sequence"] <= status["sequence"]
    assert json.loads(command(data_dir, "verify", "--json")) == []
    assert [item["run"]["name"] for item in json.loads(command(data_dir, "runs", "list", "--json"))] == ["r"]
    assert "hello" in command(data_dir, "runs", "logs", "last")
    command(data_dir, "export", "-o", str(tmp_path / "export"))
    with open_store(tmp_path / "copy", background=False) as dm, (tmp_path / "export").open("rb") as file:
        assert dm.import_(file, dry_run=True).entries["run"] == 1
    assert tree(data_dir) == before


def test_the_store_of_another_process_is_followed(tmp_path):
    directory = tmp_path / "store"
    with open_store(directory, background=False) as dm:
        dm.write_wal([Put("run", "a", b"1")])
        assert "'a'" in script(
            directory,
            """
            import sys, agola_core
            with agola_core.open(sys.argv[1], read_only=True) as dm:
                print([name for name, _ in dm.list_objects("run")])
            """,
        )
        with agola_core.open(directory, read_only=True) as reader:  # beside it, and where it could be written to
            dm.write_wal([Put("run", "b", b"2")])
            reader.refresh()
            assert [name for name, _ in reader.list_objects("run")] == ["a", "b"]
            assert dm.status().instances == (dm.options.instance,)
            with pytest.raises(ForbiddenError, match="read only"):
                reader.write_wal([Put("run", "c", b"")])


def test_writers_that_come_are_noticed(tmp_path):
    with agola_core.open(tmp_path, data_types=["note"], options=QUIET) as dm:
        dm.write_wal([Put("note", "a", b"1")])
    with agola_core.open(tmp_path, read_only=True) as reader:
        assert not (tmp_path / "coordinator.db-wal").exists()
        with agola_core.open(tmp_path, data_types=["note"], options=QUIET) as dm:
            dm.write_wal([Put("note", "b", b"2")])
            with pytest.raises(UnavailableError, match="written to while it was read without its writers"):
                reader.refresh()
    with agola_core.open(tmp_path, read_only=True) as reader:
        assert [name for name, _ in reader.list_objects("note")] == ["a", "b"]


def test_what_is_not_there_is_told(tmp_path):
    for name in ("nothing", "no-coordinator"):
        (tmp_path / name).mkdir()
    with agola_core.open(tmp_path / "store", data_types=["note"], options=QUIET) as dm:
        dm.write_wal([Put("note", "a", b"1")])
        dm.sync()
    shutil.copytree(tmp_path / "store" / "storage", tmp_path / "no-coordinator" / "storage")
    with pytest.raises(NotFoundError, match="there is no store in"):
        agola_core.open(tmp_path / "nothing", read_only=True)
    with pytest.raises(NotFoundError, match="there is no coordinator"):
        agola_core.open(tmp_path / "no-coordinator", read_only=True)
    assert tree(tmp_path / "nothing") == {}
    assert not (tmp_path / "no-coordinator" / "coordinator.db").exists()


def test_a_log_that_needs_its_index_says_what_to_do(tmp_path):
    directory = tmp_path / "store"
    subprocess.run([sys.executable, "-c", textwrap.dedent(WRITE), directory, "killed"], check=False)
    (directory / "coordinator.db-shm").unlink()
    code, _, error = on_a_read_only_mount(
        directory, sys.executable, "-m", "agola_cli", "status", "--data-dir", directory
    )
    assert code != 0
    assert "copy the directory to where it can be written to" in error
    assert "Traceback" not in error


def test_another_user_who_may_only_read(tmp_path, directory):
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    path = directory
    while path != path.parent:  # the test's own directories let others pass
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
        path = path.parent
    before = tree(directory)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            with agola_core.open(directory, read_only=True) as dm:
                found = list(dm.list_objects("note"))
            os.write(writing, repr((found, agola_core.verify(directory))).encode())
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    assert said == "([('a', b'1'), ('b', b'2')], [])"
    assert tree(directory) == before
