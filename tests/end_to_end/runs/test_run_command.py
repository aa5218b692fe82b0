"""`agola-core run`, as a person at a shell meets it."""

import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

import agola_core
from agola_core.runservice.archive.projection import DATA_TYPES


def one_task(steps):
    return f"""
        runs:
          - name: checks
            tasks:
              - name: only
                steps: {steps}
        """


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_graph_runs_in_order_with_workspaces_and_environment(tree):
    tree.configure("""
        runs:
          - name: checks
            tasks:
              - name: build
                environment: {GREETING: hello}
                steps:
                  - clone
                  - run: cat input.txt > output.txt && echo "$GREETING from $PWD" && echo "home $HOME"
                  - save_to_workspace: {contents: [{paths: ["*.txt"], dest_dir: built}]}
              - name: use
                depends: [build]
                working_dir: ~/elsewhere
                steps:
                  - restore_workspace: {dest_dir: .}
                  - run: {name: look, command: "cat built/output.txt; test ! -e input.txt", environment: {A: b}}
              - name: never
                when: {branch: other}
                steps: [{run: exit 1}]
              - name: after skipped
                depends: [{never: [on_skipped]}]
                shell: /bin/bash -e
                steps: [{run: '[[ -n "$BASH_VERSION" ]] && echo "in bash"'}]
              - name: tolerated
                ignore_failure: true
                steps: [{run: exit 3}]
        """)
    (tree.path / "input.txt").write_text("the tree is here\n")
    done = tree.run("run", ".")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| the tree is here" in done.stdout
    assert "| hello from " in done.stdout
    assert "| in bash" in done.stdout
    assert "never         ↷ skipped" in done.stdout
    assert "tolerated     ✗ failed (exit code 3)" in done.stdout
    (run,) = tree.runs()
    assert (run["state"], run["run"]["archived"], run["run"]["counter"]) == ("success", True, 1)
    logs = tree.run("runs", "logs", "last", "--task", "use")
    assert logs.stdout.endswith("the tree is here\n")
    shown = tree.run("runs", "show", "last")
    assert re.search(r"use \(after build\): +success", shown.stdout)
    assert os.environ["HOME"] not in tree.run("runs", "logs", "last", "--task", "build", "--step", "1").stdout.split()


def test_a_failing_task_fails_the_run_and_skips_what_depends_on_it(tree):
    tree.configure("""
        runs:
          - name: checks
            tasks:
              - {name: bad, steps: [{run: echo before}, {run: exit 7}, {run: echo never}]}
              - {name: below, depends: [bad], steps: [{run: echo never}]}
              - {name: cleanup, depends: [{bad: [on_failure]}], steps: [{run: echo cleaned}]}
        """)
    done = tree.run("run", ".")
    assert done.returncode == 1
    assert "bad     ✗ failed (exit code 7)" in done.stdout
    assert "| before" in done.stdout
    assert "| cleaned" in done.stdout
    assert "never" not in done.stdout.replace("echo never", "")
    assert tree.runs()[0]["state"] == "failed"
    result = json.loads(tree.run("run", ".", "--json").stdout)
    assert [run["result"] for run in result] == ["failed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs:\n- name: r\n  tasks: [{name: t, depends: [u]}]", ":3: runs[0].tasks[0].depends: task 't' depends on"),
        (
            "runs:\n- name: r\n  tasks:\n  - {name: a, depends: [b]}\n  - {name: b, depends: [a]}",
            ":4: runs[0].tasks[0]: circular dependency between tasks 'a' -> 'b' -> 'a'",
        ),
        ("runs: [", "not YAML"),
        ("runs: [{name: r, tasks: [{name: t, steps: [{walk: x}]}]}]", "steps[0].walk: unknown step type 'walk'"),
    ],
)
def test_a_wrong_configuration_is_one_error_that_names_its_place(tree, text, message):
    (tree.path / ".agola/config.yml").write_text(text)
    done = tree.run("run", ".")
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert ".agola/config.yml" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not tree.data_dir.exists()


def test_what_is_ignored_is_a_warning_or_strictly_an_error(tree):
    tree.configure("runs: [{name: r, tasks: [{name: t, step: []}]}]")
    warning = (
        "warning: .agola/config.yml:1: runs[0].tasks[0].step: unknown key 'step' is ignored; did you mean 'steps'?"
    )
    done = tree.run("run", ".", "--strict")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        warning,
        "agola-core: .agola/config.yml: 1 warning, which --strict makes errors",
    ]
    assert not tree.data_dir.exists()
    done = tree.run("run", ".")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [warning]


def test_a_run_without_tasks_is_not_made(tree):
    tree.configure("runs: [{name: r}]")
    done = tree.run("run", ".")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "agola-core: .agola/config.yml: run 'r' has no tasks"


def test_what_is_missing_is_said_in_one_line(tree):
    for arguments, message in [
        (("run", "/does/not/exist"), "no such file"),
        (("run", "."), "no run configuration"),
        (("run", ".", "--no-such-option"), "No such option"),
        (("runs", "show", "last"), "nothing has run"),
    ]:
        done = tree.run(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_ctrl_c_kills_the_whole_process_group_and_leaves_the_store_sound(tree, wait_for_line):
    tree.configure(one_task("[{run: 'sleep 1000 & echo child $!; echo shell $$; wait'}, {run: echo never}]"))
    process = tree.start("run", ".")
    lines = wait_for_line(process, "shell ")
    pids = [int(line.split()[-1]) for line in lines if "| child" in line or "| shell" in line]
    assert all(is_running(pid) for pid in pids)
    process.send_signal(signal.SIGINT)
    output = process.stdout.read()
    assert process.wait(30) == 130
    process.stdout.close()
    assert "stopping the run" in output
    assert "Traceback" not in output
    assert not any(is_running(pid) for pid in pids)
    assert tree.runs()[0]["state"] == "stopped"
    tree.configure(one_task("[{run: echo fine}]"))
    assert tree.run("run", ".").returncode == 0


def test_a_large_log_arrives_whole(tree):
    size = 50 * 1024 * 1024
    command = "head -c 39500000 /dev/zero | base64 -w 1023"
    tree.configure(one_task(f"[{{run: '{command}'}}]"))
    expected = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True).stdout
    assert len(expected) > size
    done = tree.run("run", ".", timeout=120)
    assert done.returncode == 0
    logs = subprocess.run(
        tree.command("runs", "logs", "last", "--task", "only", "--step", "0", "--data-dir", tree.data_dir),
        capture_output=True,
        check=True,
    )
    assert logs.stdout == expected


def test_unicode_and_spaces_in_paths_and_names(tmp_path, tree):
    other = type(tree)(tmp_path / "ein Projekt ü 日本", tmp_path / "da ta ü")
    other.configure("""
        runs:
          - name: prüfen
            tasks:
              - name: 'build ü "x"'
                steps: [clone, {run: 'cat "ein name ü.txt"'}, {save_to_workspace: {contents: [{paths: ["*.txt"]}]}}]
              - name: use
                depends: ['build ü "x"']
                steps: [{restore_workspace: {}}, {run: 'ls'}]
        """)
    (other.path / "ein name ü.txt").write_text("inhalt\n")
    subprocess.run(["git", "init", "-q", str(other.path)], check=True)
    done = other.run("run", ".")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| inhalt" in done.stdout
    assert "| ein name ü.txt" in done.stdout


def test_ignored_files_stay_out_of_the_tree(tree):
    tree.configure(one_task("[clone, {run: 'ls -A -I .git | sort'}]"))
    subprocess.run(["git", "init", "-q", str(tree.path)], check=True)
    (tree.path / ".gitignore").write_text("secret*\n")
    for name in ("tracked", "untracked", "secret.txt", "deleted"):
        (tree.path / name).write_text("")
    subprocess.run(["git", "-C", str(tree.path), "add", "tracked", "deleted"], check=True)
    (tree.path / "deleted").unlink()
    tree.run("run", ".")
    names = tree.run("runs", "logs", "last", "--step", "1").stdout.split()
    assert names == [".agola", ".gitignore", "tracked", "untracked"]


@pytest.mark.timeout(600)
def test_kill_9_at_ten_moments_loses_nothing_acknowledged(tree, wait_for_line, kill_now):
    """Each kill comes after another line of the run; what was acknowledged by then must be there."""
    tree.configure("""
        runs:
          - name: checks
            tasks:
              - {name: one, steps: [{run: echo a1}, {run: echo a2}, {run: echo a3}]}
              - {name: two, depends: [one], steps: [{run: echo b1}, {run: echo b2}]}
              - {name: three, depends: [two], steps: [{run: echo c1; sleep 1000}]}
        """)
    moments = ["run 'checks'", "one   ", "> echo a1", "| a1", "| a2", "| a3", "two   ", "| b1", "three ", "| c1"]
    assert len(moments) == 10
    acknowledged = []
    for number, moment in enumerate(moments, 1):
        process = tree.start("run", ".")
        first = wait_for_line(process, "run 'checks' #")[-1]
        acknowledged.append(first.split()[-1])
        if moment not in first:
            wait_for_line(process, moment)
        kill_now(process)
        listed = tree.runs()
        assert [item["run"]["id"] for item in reversed(listed)] == acknowledged
        assert [item["run"]["counter"] for item in reversed(listed)] == list(range(1, number + 1))
        assert listed[0]["state"] == "interrupted"
        assert tree.run("runs", "show", "last").returncode == 0
    tree.configure(one_task("[{run: echo fine}]"))
    done = tree.run("run", ".")
    assert done.returncode == 0, done.stdout + done.stderr
    states = [item["state"] for item in tree.runs()]
    assert states[0] == "success"
    assert "interrupted" not in states
    with agola_core.open(tree.data_dir, data_types=DATA_TYPES) as dm:
        configs = [run_id for run_id, _ in dm.list_objects("runconfig")]
        assert configs[:10] == acknowledged
        assert dm.read_object("runcounter", "local")[0] == b"11"


def test_two_services_do_not_share_a_data_directory(tree, wait_for_line):
    tree.configure(one_task("[{run: echo started; sleep 1000}]"))
    process = tree.start("run", ".")
    wait_for_line(process, "| started")
    second = tree.run("run", ".")
    assert second.returncode == 4
    assert f"in use by process {process.pid}, a service or a run: wait for its end, ask a service" in second.stderr
    process.send_signal(signal.SIGTERM)
    process.stdout.read()
    assert process.wait(30) == 130
    process.stdout.close()


def test_on_a_terminal_the_graph_is_drawn_while_it_runs(tree):
    tree.configure("""
        runs:
          - name: checks
            tasks:
              - {name: first, steps: [{run: 'echo "[bold]as it is[/bold]"'}]}
              - {name: second, depends: [first], steps: [{run: exit 4}]}
        """)
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        tree.command("run", "."),
        cwd=tree.path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "AGOLA_DATA_DIR": str(tree.data_dir), "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(terminal)
    output = b""
    while True:
        try:
            piece = os.read(controller, 65536)
        except OSError:  # the terminal's other end is closed
            break
        if not piece:
            break
        output += piece
    os.close(controller)
    assert process.wait(30) == 1
    text = output.decode()
    assert "[bold]as it is[/bold]" in text
    assert "▶ first" in text or "· first" in text
    assert "\x1b[31mfailed" in text
    assert "Traceback" not in text


def test_a_step_or_a_task_that_runs_too_long_fails_and_says_so(tree):
    tree.configure(
        """
        runs:
          - name: slow
            tasks:
              - name: step
                steps: [{ run: { command: sleep 300, timeout: 0.5 } }]
              - name: task
                timeout: 1s
                steps: [run: sleep 300]
              - name: neither
                timeout: 10m
                labels: { disk: none }
                max_attempts: 2
                steps: [{ run: { command: "true", timeout: 5m } }]
        """
    )
    process = tree.run("config", "check", ".")
    assert process.returncode == 0, process.stderr
    tree.configure(
        """
        runs:
          - name: slow
            tasks:
              - name: step
                steps: [{ run: { command: sleep 300, timeout: 0.5 } }]
              - name: task
                timeout: 1s
                ignore_failure: true
                steps: [run: sleep 300]
        """
    )
    assert tree.run("run", ".").returncode == 1
    shown = json.loads(tree.run("runs", "show", "last", "--json").stdout)
    reasons = {shown["run_config"]["tasks"][key]["name"]: task["reason"] for key, task in shown["run"]["tasks"].items()}
    assert reasons == {
        "step": "step 0 ran longer than its timeout of 0.5 s",
        "task": "the task ran longer than its timeout of 1 s",
    }


def test_a_task_that_waits_for_a_person_says_how_to_approve_it(tree, wait_for_line):
    tree.configure("""
        runs:
          - name: gated
            tasks:
              - {name: go live, approval: true, steps: [{run: echo live}]}
        """)
    process = tree.start("run", ".")
    command = wait_for_line(process, "waits for approval")[-1].partition("approval: agola-core ")[2]
    approved = tree.run(*shlex.split(command))
    assert approved.returncode == 0, approved.stderr
    assert "| live" in process.stdout.read()
    process.stdout.close()
    assert process.wait() == 0


@pytest.mark.parametrize("arguments", [(), (".",), ("./",), ("../project",)])
def test_a_checkout_is_named_by_a_relative_path(tree, arguments):
    tree.configure("runs: [{name: r, tasks: [{name: t, steps: [clone, {run: git log --format=%s}]}]}]")
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first commit"]):
        subprocess.run(["git", *command], cwd=tree.path, check=True)
    done = tree.run("run", *arguments)
    assert done.returncode == 0, done.stderr
    assert "first commit" in done.stdout
