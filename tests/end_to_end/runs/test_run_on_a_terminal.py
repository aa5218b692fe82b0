"""`agola-core run` through a real terminal or a pipe: what is shown last, Ctrl-C, and outputs that go away."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.terminal import Terminal

_COLOURED = re.compile(rb"\x1b\[(?:1;)?(?:3[0-7]|9[0-7]|38;[0-9;]*)m")

STUBBORN = """
    runs:
      - name: checks
        tasks:
          - name: only
            steps:
              - run: "trap '' TERM INT; echo $$ > {pid}; echo begun; while true; do sleep 0.1; done"
    """


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def terminal(tree):
    """Starts agola-core on a terminal."""

    def start(*arguments, env=None, **size):
        return Terminal(
            tree.command(*arguments), tree.path, {"AGOLA_DATA_DIR": str(tree.data_dir), **(env or {})}, **size
        )

    return start


def test_everything_that_was_written_comes_before_the_result_and_what_failed_after_it(tree):
    tree.configure("""
        runs:
          - name: checks
            tasks:
              - name: long
                steps: [{run: "seq 1 20000; echo the last line"}]
              - name: bad
                steps:
                  - run: echo fine
                  - run: {name: the culprit, command: "echo one; echo why it failed >&2; exit 3"}
              - {name: later, depends: [bad], steps: [{run: "true"}]}
        """)
    done = tree.run("run", ".")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    verdict = next(number for number, line in enumerate(lines) if line.startswith("run 'checks' #1: failed"))
    assert max(number for number, line in enumerate(lines) if "long" in line) < verdict
    assert any("long  | the last line" in line for line in lines[:verdict])
    after = "\n".join(lines[verdict:])
    assert "✗ bad, step 1 'the culprit': failed (exit code 3)" in after
    assert "| why it failed" in after
    assert "runs logs" in after
    assert "--task bad --step 1" in after
    assert lines[-2].startswith("look at it again: agola-core runs show ")


def test_the_end_of_a_task_comes_after_its_log(tree):
    tree.configure("""
        runs:
          - name: checks
            tasks:
              - {name: only, steps: [{run: "seq 1 5000"}]}
        """)
    lines = tree.run("run", ".").stdout.splitlines()
    assert lines.index("only | 5000") < next(n for n, line in enumerate(lines) if line.startswith("only ✓ success"))


def test_ctrl_c_twice_kills_everything_at_once(tree, terminal, tmp_path):
    pid_file = tmp_path / "pid"
    tree.configure(STUBBORN.format(pid=pid_file))
    screen = terminal("run", ".")
    screen.wait_for("| begun")
    pid = int(pid_file.read_text())
    screen.type(b"\x03")
    screen.wait_for("Ctrl-C again kills it at once")
    screen.type(b"\x03")
    assert screen.wait() == 130
    assert not is_running(pid)
    assert "Traceback" not in screen.text
    assert tree.runs()[0]["state"] == "stopped"


def test_a_terminal_that_is_closed_stops_the_run(tree, terminal, tmp_path):
    pid_file = tmp_path / "pid"
    tree.configure(STUBBORN.format(pid=pid_file).replace("trap '' TERM INT", "true"))
    screen = terminal("run", ".")
    screen.wait_for("| begun")
    os.close(screen._controller)
    assert screen.process.wait(60) in {74, 130}
    assert not is_running(int(pid_file.read_text()))


def test_a_reader_that_goes_away_stops_the_run_without_a_word(tree):
    tree.configure("""
        runs:
          - name: checks
            tasks:
              - {name: only, steps: [{run: "while true; do echo more; done"}]}
        """)
    process = subprocess.Popen(
        tree.command("run", "."),
        cwd=tree.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "AGOLA_DATA_DIR": str(tree.data_dir)},
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 141
    assert tree.runs()[0]["state"] == "stopped"


def test_an_output_on_a_full_disk_is_no_defect(tree):
    tree.configure("""
        runs:
          - name: checks
            tasks:
              - {name: only, steps: [{run: "true"}]}
        """)
    assert tree.run("run", ".").returncode == 0
    for arguments in (("run", "."), ("runs", "list"), ("runs", "show", "last"), ("status",)):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                tree.command(*arguments),
                cwd=tree.path,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                env={**os.environ, "AGOLA_DATA_DIR": str(tree.data_dir)},
            )
        assert done.returncode == 74, arguments
        assert done.stderr == "agola-core: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("arguments", [("nonsense",), ("get",), ("run", "--nonsense"), ("runs", "show", "none")])
def test_an_error_that_cannot_be_written_keeps_its_exit_code(tree, arguments):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            tree.command(*arguments),
            cwd=tree.path,
            stderr=full,
            check=False,
            env={**os.environ, "AGOLA_DATA_DIR": str(tree.data_dir)},
        )
    assert done.returncode == 2


def test_an_output_that_is_closed_from_the_start_is_no_defect(tree):
    tree.configure("""
        runs:
          - name: checks
            tasks:
              - {name: only, steps: [{run: "echo here; exit 3"}]}
        """)
    command = shlex.join([sys.executable, "-m", "agola_cli", "run", "."])
    for closed, code in ((">&-", 1), ("<&- >&- 2>&-", 1)):
        done = subprocess.run(
            ["/bin/sh", "-c", f"{command} {closed}"],
            cwd=tree.path,
            capture_output=True,
            text=True,
            check=False,
            env=tree.environment(),
        )
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert tree.run("runs", "logs", "last").stdout == "here\n"


def test_ctrl_c_while_the_commands_are_imported_gives_no_traceback(tree, tmp_path):
    slow = tmp_path / "slow/click"
    slow.mkdir(parents=True)
    (slow / "__init__.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "agola_cli", "run", "."],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(slow.parent)},
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (-signal.SIGINT, "", "")


def test_forty_tasks_leave_room_for_the_logs_and_the_end_is_visible(tree, terminal):
    tasks = "\n".join(
        f'              - {{name: task {n}, steps: [{{run: "echo hello {n}; exit {int(n == 7)}"}}]}}' for n in range(40)
    )
    tree.configure(f"""
        runs:
          - name: checks
            tasks:
{tasks}
        """)
    screen = terminal("run", ".", "-j", "40", lines=24, columns=60)  # a failure keeps what waits from starting
    assert screen.wait() == 1
    assert "hello 39" in screen.text
    last = screen.text.rstrip().splitlines()[-20:]
    assert any(line.startswith("run 'checks' #1: failed") for line in last)
    assert any("✗ task 7" in line for line in last)
    command = next(line for line in last if line.startswith("look at it again:"))
    assert tree.runs()[0]["run"]["id"] in command.split()  # not broken in the middle


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours_where_nobody_wants_them(tree, terminal, env):
    tree.configure("""
        runs:
          - name: checks
            tasks:
              - {name: only, steps: [{run: exit 4}]}
        """)
    screen = terminal("run", ".", env=env)
    assert screen.wait() == 1
    assert "✗ only" in screen.text
    assert _COLOURED.findall(screen.output) == []
    if "TERM" in env:  # nothing is redrawn, either
        assert b"\x1b[" not in screen.output
    for command in (
        ["runs", "show", "last"],
        ["runs", "list"],
        ["runs", "logs", "last"],
        ["status"],
        ["run", "--list"],
    ):
        screen = terminal(*command, env=env)
        assert screen.wait() == 0
        assert b"\x1b[" not in screen.output, command


def test_tasks_have_distinct_colours(tree, terminal):
    tasks = "".join(f'\n  - {{name: task {n}, steps: [{{run: "echo hello {n}"}}]}}' for n in range(8))
    tree.configure(f"runs:\n- name: checks\n  tasks:{tasks}\n")
    screen = terminal("run", ".")
    assert screen.wait() == 0
    lines = screen.output.decode().replace("\r", "\n").split("\n")
    prefixes = [next(line for line in lines if f"| hello {n}" in line).partition("task")[0] for n in range(8)]
    assert all(_COLOURED.search(prefix.encode()) for prefix in prefixes)
    assert len({_COLOURED.findall(prefix.encode())[-1] for prefix in prefixes}) == 8
