"""What commands once kept to themselves: a service that is away, a store of another kind, a mode that is off."""

import os
import signal
import subprocess
import sys

import agola_core
from agola_core import Put


def test_an_executor_without_its_service_says_so_at_once(tree, wait_for_line, tmp_path):
    process = tree.start("executor", "--url", "http://127.0.0.1:1", "--directory", tmp_path / "executor")
    wait_for_line(process, "http://127.0.0.1:1 cannot be reached: [Errno 111] Connection refused; it is tried again")
    process.kill()
    process.communicate(timeout=60)


def test_serve_on_another_application_s_store_leaves_nothing_there(tree):
    with agola_core.open(tree.data_dir, data_types=["note"]) as store:
        store.write_wal([Put("note", "a", b"1")])
    done = tree.run("serve", "--port", "0")
    assert done.returncode == 2
    assert "it belongs to another application" in done.stderr
    assert not (tree.data_dir / "tokens").exists()


def test_an_import_outside_of_maintenance_names_what_to_do(tree, tmp_path):
    tree.configure("""
        runs:
          - name: checks
            tasks: [{name: only, steps: [{run: "true"}]}]
        """)
    assert tree.run("run", ".").returncode == 0
    assert tree.run("export", "-o", tmp_path / "x").returncode == 0
    refused = tree.run("import", tmp_path / "x", "--yes")
    assert refused.returncode == 2
    assert "first run `agola-core maintenance on --wait`" in refused.stderr


def test_ctrl_c_while_a_service_starts_gives_no_traceback(tree, wait_for_line):
    """At a point where the store is open and the executor is made, but not started."""
    process = subprocess.Popen(
        [sys.executable, "-m", "agola_cli", "serve", "--port", "0"],
        cwd=tree.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "AGOLA_DATA_DIR": str(tree.data_dir),
            "AGOLA_FAULTPOINT": "executor.before-heartbeat:1:stop",
        },
    )
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "internal error" not in output
