"""`agola-core run --watch` and `--shell`: what a person does with a run that fails."""

import signal
import subprocess

import pytest

from agola_cli.runs.launch.watch import TreeWatcher
from tests.support.terminal import Terminal

LOOP = """
    runs:
      - name: checks
        tasks:
          - name: only
            steps: [{run: "%s"}]
    """


def test_watch_runs_again_when_files_change(tree, wait_for_line):
    tree.configure(LOOP % "echo one")
    process = tree.start("run", "--watch")
    seen = "".join(wait_for_line(process, "waiting for files to change"))
    assert "only | one" in seen
    assert "#1: success" in seen
    tree.configure("runs: [")  # an error is said, and is no end
    assert "not YAML" in "".join(wait_for_line(process, "waiting for files to change"))
    tree.configure(LOOP % "echo two; while true; do sleep 0.1; done")
    wait_for_line(process, "only | two")
    tree.configure(LOOP % "echo three")  # while it runs
    seen = "".join(wait_for_line(process, "waiting for files to change"))
    assert "files have changed: stopping the run" in seen
    assert "#2: stopped" in seen
    assert "only | three" in seen
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert [item["state"] for item in tree.runs()] == ["success", "stopped", "success"]


def test_watch_looks_at_what_goes_to_the_tasks(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("ignored\nci.yml\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "a").write_text("1")
    watcher = TreeWatcher(tmp_path, [tmp_path / "ci.yml"], [tmp_path / "data"])
    known = watcher._look()
    for name in ("ignored", "data/file", ".git/file"):
        (tmp_path / name).write_text("new")
    assert watcher._look() == known
    (tmp_path / "a").chmod(0o755)
    changed = watcher._look()
    (tmp_path / "untracked").write_text("new")
    more = watcher._look()
    (tmp_path / "ci.yml").write_text("the configuration")
    assert len({str(look) for look in (known, changed, more, watcher._look())}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--watch", "--graph", "dot"], "--watch runs new runs until Ctrl-C: leave --graph out"),
        (["--failed", "--watch"], "--failed repeats the last run as it was: leave --watch out"),
        (["--shell", "only", "--json"], "leave --json out"),
        (["--shell", "other"], "no task 'other'; there are 'only'"),
        (["--watch", "no such place"], "no such file or directory"),
    ],
)
def test_what_does_not_go_together_is_refused(tree, options, message):
    tree.configure(LOOP % "true")
    refused = tree.run("run", *options)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert not tree.data_dir.exists()


def test_a_shell_opens_where_a_step_has_failed(tree):
    tree.configure("""
        runs:
          - name: checks
            tasks:
              - name: build
                working_dir: ~/here
                environment: {COLOUR: red, LEVEL: task}
                steps:
                  - run: echo made > file
                  - run: {command: exit 3, environment: {LEVEL: step}}
        """)
    environment = {"AGOLA_DATA_DIR": str(tree.data_dir)}
    screen = Terminal(tree.command("run", "--shell", "build"), tree.path, environment, columns=200)
    screen.wait_for("`exit` ends it")
    screen.type(b"PS1='rea''dy> '; cat file; echo $COLOUR $LEVEL ${PWD##*/} $((40 + 2)); tail -n 1 ../../command-1\n")
    screen.wait_for("red step here 42")
    screen.wait_for("exit 3\nready> ")
    screen.type(b"\x03")  # interrupts the shell's line, not the command
    screen.wait_for("^C\nready> ")  # until then the shell forgets what is typed
    screen.type(b"echo still $((1 + 1))\nexit 9\n")
    assert screen.wait() == 1
    assert "made" in screen.text
    assert "still 2" in screen.text
    assert "Traceback" not in screen.text
    fine = tree.run("run", "--failed", "--shell", "build")
    assert fine.returncode == 1  # its standard input is empty: the shell ends
    assert "step 1 of build failed" in fine.stderr
