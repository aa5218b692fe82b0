"""Moving from a running service with another object storage: export, logs and archives by one command."""

import json
import signal
from contextlib import closing

import pytest

import agola_core
from agola_core.runservice.artifacts.references import KINDS
from tests.support.pages import run_page

CONFIG = """
    runs:
      - name: r
        tasks:
          - name: t
            steps:
              - run: echo hello
              - save_to_workspace: {contents: [{paths: ["*"]}]}
"""


@pytest.fixture
def old(tree, tmp_path, wait_for_line):
    """A running service, and an object storage as Agola may have it: flat, with a cache and half a file."""
    tree.configure(CONFIG)
    assert tree.run("run", ".").returncode == 0
    flat = tmp_path / "old"
    with (
        closing(agola_core.open_storage(f"posixflat://{flat}")) as target,
        closing(agola_core.open_storage(str(tree.data_dir / "storage"))) as source,
    ):
        for prefix in KINDS:
            for info in source.list(prefix):
                target.write(info.path, source.read(info.path))
        target.write("caches/key.tar", b"cache")
    process = tree.start("serve", "--port", "0", "--no-executor", "--no-tokens")  # as Agola, which has none
    url = wait_for_line(process, "serving on ")[-1].split()[-1]
    yield ("--from-url", url, "--copy-from", f"posixflat://{flat}")
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    process.stdout.close()


def paths(directory):
    with closing(agola_core.open_storage(str(directory / "storage"))) as storage:
        return {info.path: info.size for prefix in (*KINDS, "caches/") for info in storage.list(prefix)}


def test_one_command_moves_everything(tree, old, tmp_path):
    new = tmp_path / "new"
    planned = tree.run("import", *old, "--data-dir", new, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "checked: 1 run, 1 runconfig, 1 runcounter" in planned.stderr
    assert "would be copied" in planned.stderr
    assert not new.exists()
    moved = tree.run("import", *old, "--data-dir", new)
    assert moved.returncode == 0, moved.stderr
    assert "imported: 1 run, 1 runconfig, 1 runcounter" in moved.stderr
    assert "all of them are here, in their sizes" in moved.stderr
    assert paths(new) == paths(tree.data_dir)
    (run,) = json.loads(tree.run("runs", "list", "--json", "--data-dir", new).stdout)
    assert "hello" in tree.run("runs", "logs", run["run"]["id"], "--data-dir", new).stdout


def test_the_page_on_moving_is_true(tree, old, tmp_path):
    new = tmp_path / "new"
    (tmp_path / "configurations").mkdir()
    (tmp_path / "configurations/config.yml").write_text(CONFIG)
    done = run_page("moving-from-agola.md", new, **{"http://RUNSERVICE": old[1], "posixflat:///srv/agola": old[3]})
    assert done.returncode == 0, done.stderr
    assert "would be copied" in done.stderr
    assert "all of them are here" in done.stderr
    assert tree.run("export", "--format", "agola").stdout == (tmp_path / "for-agola").read_text()


def test_a_copy_that_was_cut_off_goes_on(tree, old, tmp_path):
    new = tmp_path / "new"
    cut = tree.run("import", *old, "--data-dir", new, env={"AGOLA_FAULTPOINT": "copy.before-object:3:kill"})
    assert cut.returncode == -signal.SIGKILL
    assert not (new / "coordinator.db").exists()
    done = tree.run("import", *old, "--data-dir", new, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["artifacts"]["missing"] == 0
    lost, *_ = (new / "storage/data/logs").rglob("*.log")
    lost.write_bytes(b"")
    again = tree.run("import", *old[2:], "--data-dir", new, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["copied"] == 1
    assert paths(new) == paths(tree.data_dir)


def test_what_is_wrong_is_told_before_anything_is_made(tree, old, tmp_path):
    new = tmp_path / "new"
    for arguments, said in (
        (("--from-url", "http://127.0.0.1:9"), "127.0.0.1:9"),
        (("--copy-from", f"posix://{tmp_path}/none"), f"--copy-from: no directory {tmp_path}/none"),
        (("file", "--from-url", old[1]), "name FILE or --from-url, not both"),
        (("--url", old[1], *old[2:]), "write to a store, not to a service"),
    ):
        named = () if "--url" in arguments else ("--data-dir", new)
        refused = tree.run("import", *arguments, *named, env={"AGOLA_DATA_DIR": ""})
        assert refused.returncode in {2, 3}
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr
        assert not new.exists()
