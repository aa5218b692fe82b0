"""`agola-core ls|get|put|history|watch` on a library's store."""

import json
import os
import signal
import subprocess

import pytest

import agola_core
from agola_core import Delete, Put
from tests.support.terminal import Terminal


@pytest.fixture
def notes(tree):
    with agola_core.open(tree.data_dir, data_types=["note", "tag"]) as store:
        store.write_wal([Put("note", "a", b"first"), Put("tag", "t", b"")])
        store.write_wal([Put("note", "b", b"\x00second\xff"), Delete("tag", "t")])
    return tree


def test_objects_are_listed_read_and_written(notes, tmp_path):
    assert notes.run("ls").stdout.split() == ["note", "tag"]
    assert [line.split() for line in notes.run("ls", "note").stdout.splitlines()] == [["5", "a"], ["8", "b"]]
    assert json.loads(notes.run("ls", "note", "--start-after", "a", "--json").stdout) == {"id": "b", "size": 8}
    raw = subprocess.run(
        notes.command("get", "note", "b"),
        capture_output=True,
        check=True,
        env={**os.environ, "AGOLA_DATA_DIR": str(notes.data_dir)},
    )
    assert raw.stdout == b"\x00second\xff"
    (tmp_path / "file").write_bytes(b"third")
    stored = notes.run("put", "note", "c", tmp_path / "file")
    assert stored.returncode == 0, stored.stderr
    assert notes.run("get", "note", "c").stdout == "third"
    then = notes.run("history", "note", "b", "--json").stdout
    sequence = json.loads(then)["sequence"]
    assert notes.run("get", "note", "c", "--at", sequence).returncode == 1
    missing = notes.run("get", "note", "x")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "agola-core: " in missing.stderr
    for arguments, message in [
        (["get", "nots", "x"], "nots"),
        (["ls", "nots"], "unknown data type"),
        (["put", "note", "d", tmp_path / "none"], "No such file"),
    ]:
        done = notes.run(*arguments)
        assert done.returncode == 2, arguments
        assert message in done.stderr


def test_ids_are_harmless_on_a_terminal_and_raw_in_pipes(tree):
    strange = "a\x1b[2J\nb"
    with agola_core.open(tree.data_dir, data_types=["note"]) as store:
        store.write_wal([Put("note", strange, b"")])
    for arguments in (["ls", "note"], ["history"]):
        terminal = Terminal(tree.command(*arguments), tree.path, {"AGOLA_DATA_DIR": str(tree.data_dir)})
        assert terminal.wait() == 0
        assert "a\ufffd[2J\ufffdb" in terminal.text
        assert b"\x1b[2J" not in terminal.output
        assert strange in tree.run(*arguments).stdout


def test_the_history_of_a_store_a_type_and_an_object(notes):
    changes = [json.loads(line) for line in notes.run("history", "--json").stdout.splitlines()]
    assert [(change["action"], change["data_type"], change["id"]) for change in changes] == [
        ("put", "note", "a"),
        ("put", "tag", "t"),
        ("put", "note", "b"),
        ("delete", "tag", "t"),
    ]
    assert len(notes.run("history", "tag").stdout.splitlines()) == 2
    assert notes.run("history", "note", "a").stdout.rstrip().endswith("put     note a  5 bytes")
    assert notes.run("checkpoint").returncode == 0
    assert notes.run("history").returncode == 0


def test_changes_are_watched_as_they_are_committed(notes, wait_for_line):
    process = notes.start("watch", "note", "--json")
    wait_for_line(process, "watching from ")
    assert notes.run("put", "note", "new", "/dev/null").returncode == 0
    change = json.loads(wait_for_line(process, "new")[-1])
    assert (change["action"], change["id"], change["size"]) == ("put", "new", 0)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output


def test_a_run_service_s_objects_are_read_and_not_written(tree):
    tree.configure("""
        runs:
          - name: checks
            tasks: [{name: only, steps: [{run: "true"}]}]
        """)
    assert tree.run("run", ".").returncode == 0
    assert "run" in tree.run("ls").stdout.split()
    assert len(tree.run("ls", "run").stdout.splitlines()) == 1
    refused = tree.run("put", "run", "x", "/dev/null")
    assert refused.returncode == 4
    assert "written by the service alone" in refused.stderr
