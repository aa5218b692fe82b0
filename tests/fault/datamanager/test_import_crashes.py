"""Imports that are really killed at each fault point, and writers that slept through one."""

import io
import os
import signal
import subprocess
import sys
import textwrap

import pytest

import agola_core
from agola_core import Options, Put, maintenance
from agola_core.coordinator.port import PutOp
from agola_core.datamanager.format import keys as log_keys
from agola_core.runservice.archive import transfer
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.store import RunStore
from agola_core.standalone import open_store
from tests.support.leases import end_leases

IMPORTER = textwrap.dedent("""
    import sys
    from agola_core.runservice.archive import transfer
    from agola_core.standalone import open_store
    from pathlib import Path

    with open_store(Path(sys.argv[1]), background=False) as dm, open(sys.argv[2], "rb") as file:
        print("open", flush=True)
        transfer.import_(dm, file)
        print("imported", flush=True)
""")

POINTS = [  # in the order in which an import passes them
    "checkpoint.before-data-file",
    "import.before-object",
    "lineage.before-manifest",
    "lineage.before-txn",
    "lineage.before-marker",
    "import.before-reset",
]
SWITCHED = {"lineage.before-marker", "import.before-reset"}
ACTIVE = "0000000000001-0000000000009"
RUN = '{"id":"0000001ekg0a0-0000000000001","phase":"finished","result":"success","archived":true}'


@pytest.fixture
def stream(tmp_path):
    """Write an export with every kind of part, and return its path."""
    with open_store(tmp_path / "source", background=False) as dm:
        dm.write_wal([Put("run", "0000001ekg0a0-0000000000001", RUN.encode()), Put("runcounter", "new", b"1")])
        dm.coordinator.txn(
            [], [PutOp(run_keys.RUNS.key("0000001ekg0a0-0000000000002"), RUN.replace('1"', '2"').encode())]
        )
        dm.storage.write("logs/t1/data/setup.log", b"log")
        with (tmp_path / "stream").open("wb") as file:
            transfer.export(dm, file, include=list(transfer.Include))
    return tmp_path / "stream"


def work(path, stream, point):
    return subprocess.run(
        [sys.executable, "-c", IMPORTER, str(path), str(stream)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "AGOLA_FAULTPOINT": point},
    )


def state(path):
    with open_store(path, background=False) as dm:
        transfer.finish_import(dm.coordinator)  # what every service does at its start
        active = [run.id for run in RunStore(dm.coordinator, 0).runs()]
        return [key for key, _ in dm.list_objects("run")], dict(dm.list_objects("runcounter")), active, dm.verify()


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_the_old_state_or_the_new_one_whole(tmp_path, stream, point):
    path = tmp_path / "store"
    with open_store(path, background=False) as dm:
        dm.write_wal([Put("runcounter", "old", b"5")])
        dm.coordinator.txn([], [PutOp(run_keys.RUNS.key(ACTIVE), f'{{"id":"{ACTIVE}"}}'.encode())])
        maintenance.enable(dm.coordinator)
    old = ([], {"old": b"5"}, [ACTIVE], [])
    new = (["0000001ekg0a0-0000000000001", "0000001ekg0a0-0000000000002"], {"new": b"1"}, [], [])
    assert state(path) == old
    killed = work(path, stream, f"{point}:{2 if point == 'import.before-reset' else 1}:kill")
    assert killed.returncode == -9, killed.stderr
    assert "imported" not in killed.stdout
    end_leases(path)
    assert state(path) == (new if point in SWITCHED else old)
    if point in {"lineage.before-txn", "lineage.before-marker"}:
        again = work(path, stream, "")
        assert again.returncode == 0, again.stderr
        assert state(path) == new


WRITER = textwrap.dedent("""
    import os, signal, sys
    import agola_core
    from agola_core import Options, Put

    with agola_core.open(sys.argv[1], data_types=["n"], options=Options(background=False, lock_ttl=0.5)) as dm:
        token = dm.change_groups_token(["g"])
        try:
            dm.write_wal([Put("n", "zombie", b"")], token if sys.argv[2] == "token" else None)
        except agola_core.AgolaError as error:
            print(type(error).__name__, flush=True)
        else:
            print("written", flush=True)
        try:
            print(dm.checkpoint(force=True))
        except agola_core.AgolaError as error:
            print(type(error).__name__)
        print(sorted(key for key, _ in dm.list_objects("n")))
""")


@pytest.mark.parametrize("guard", ["token", "none"])
def test_a_writer_that_slept_through_an_import_is_refused(tmp_path, guard):
    """A process that is stopped in mid-commit, past its lease, finds another lineage when it goes on."""
    options = Options(background=False, lock_ttl=0.5)
    with agola_core.open(tmp_path, data_types=["n"], options=options) as dm:
        dm.write_wal([Put("n", "old", b"")])
        exported = io.BytesIO()
        dm.export(exported)
        exported.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), guard],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "AGOLA_FAULTPOINT": "commit.before-txn:1:stop"},
        )
        assert os.waitpid(process.pid, os.WUNTRACED)[1] & 0xFF == 0x7F  # it has stopped
        while True:
            with dm.coordinator.watch(log_keys.INSTANCES, dm.coordinator.list(log_keys.HEAD).revision + 1) as watch:
                try:
                    dm.import_(exported)
                    break
                except agola_core.ConflictError:  # its lease has not ended yet
                    exported.seek(0)
                    watch.next(60)
        process.send_signal(signal.SIGCONT)
        output = process.communicate(timeout=60)[0].split()
        assert output[0] in {"FencedError", "TokenExpiredError"}
        assert output[-1] == "['old']"
        dm.refresh()
        assert [key for key, _ in dm.list_objects("n")] == ["old"]
