"""`agola-core runs`, as a person at a shell meets it."""

import csv
import io
import json
import subprocess
import sys

import click
import pytest

from agola_cli.main import cli
from agola_cli.options.common import processors

TWO_TASKS = """
    runs:
      - name: two
        tasks:
          - {name: build, steps: [{run: echo built}]}
          - {name: try it, depends: [build], steps: [{run: echo tried}, {run: "test -z \\"$FAIL\\""}]}
    """


@pytest.fixture
def used(tree):
    tree.configure(TWO_TASKS)
    assert tree.run("run", ".").returncode == 0
    assert tree.run("run", ".", "--env", "FAIL=yes").returncode == 1
    return tree


def test_lists_come_in_every_format(used):
    table = used.run("runs", "list").stdout.splitlines()
    assert table[0].split() == ["ID", "NUMBER", "NAME", "STATE", "TIME", "DATE", "BRANCH", "COMMIT", "GROUP"]
    assert [line.split()[3] for line in table[1:]] == ["failed", "success"]
    rows = list(csv.DictReader(io.StringIO(used.run("runs", "list", "-o", "csv").stdout)))
    assert [row["state"] for row in rows] == ["failed", "success"]
    lines = used.run("runs", "list", "-o", "ndjson", "--order", "oldest").stdout.splitlines()
    assert [json.loads(line)["run"]["counter"] for line in lines] == [1, 2]
    assert json.loads(used.run("runs", "list", "--json").stdout) == json.loads(
        used.run("runs", "list", "-o", "json").stdout
    )


def test_lists_are_cut_by_time_and_number(used):
    def states(*arguments):
        return [item["state"] for item in json.loads(used.run("runs", "list", "--json", *arguments).stdout)]

    assert states("--since", "1h") == ["failed", "success"]
    assert states("--until", "1h") == []
    assert states("--since", "2001-01-01", "--limit", "1") == ["failed"]
    assert states("--limit", "0") == []
    wrong = used.run("runs", "list", "--since", "yesterday")
    assert wrong.returncode == 2
    assert "neither a time" in wrong.stderr


def test_a_run_shows_its_graph_with_times(used):
    lines = used.run("runs", "show", "last").stdout.splitlines()
    assert "failed" in lines[0]
    assert lines[1].lstrip().startswith("✓ build:")
    assert lines[2].startswith("    ✗ try it (after build): failed (exit code 1)")
    assert all("█" in line for line in lines[1:])


def test_logs_of_chosen_tasks(used):
    assert used.run("runs", "logs", "last", "--task", "build").stdout == "built\n"
    followed = used.run("runs", "logs", "last", "-f")
    assert followed.returncode == 1
    assert "try it | tried" in followed.stdout
    assert "build  | built" in followed.stdout
    for arguments, message in [
        (["--task", "buld"], "has no task 'buld'; did you mean 'build'?"),
        (["--task", "missing"], "has no task 'missing'; there are 'build', 'try it'"),
        (["-f", "--step", "0"], "leave out --step, --setup"),
        (["--task", "build", "--step", "5"], "no such step"),
    ]:
        done = used.run("runs", "logs", "last", *arguments)
        assert done.returncode == 2, arguments
        assert message in done.stderr


def test_a_log_that_cannot_be_read_is_told_among_the_others(used):
    run = json.loads(used.run("runs", "show", "last", "--json").stdout)
    task_id = next(task["id"] for task in run["run_config"]["tasks"].values() if task["name"] == "build")
    (log,) = used.data_dir.glob(f"**/logs/**/{task_id}/**/0.log")
    log.unlink()
    log.symlink_to(log.name)
    done = used.run("runs", "logs", "last")
    assert done.stdout == "tried\n"
    assert "the log of build: echo built cannot be read: " in done.stderr
    assert done.returncode == 3
    log.unlink()  # as in a store that was restored without its logs
    done = used.run("runs", "logs", "last")
    assert done.stdout == "tried\n"
    assert "the log of build: echo built cannot be read: it is not in the store\n" in done.stderr
    assert done.stderr.endswith("1 of the logs could not be read\n")
    assert done.returncode == 3
    followed = used.run("runs", "logs", "last", "--follow")
    assert "the log of step 0 cannot be read: it is not in the store" in followed.stdout + followed.stderr
    assert "| tried" in followed.stdout
    assert followed.stderr.endswith("not all of the logs could be read\n")
    assert followed.returncode == 3


def test_what_has_ended_cannot_be_stopped_or_approved(used):
    assert "has ended" in used.run("runs", "stop", "last").stderr
    assert used.run("runs", "stop", "last").returncode == 2
    assert "no task of run" in used.run("runs", "approve", "last").stderr
    assert "has no task 'x'; there are 'build', 'try it'" in used.run("runs", "approve", "last", "x").stderr


def test_a_restart_without_a_service_runs_here_unless_others_wait(used):
    done = used.run("runs", "restart", "last", "--env", "FAIL=")
    assert done.returncode == 0, done.stderr
    assert "run 'two' #3: success" in done.stdout
    assert "build  |" not in done.stdout  # it succeeded before
    waiting = used.run("runs", "restart", "2", "--detach")
    assert waiting.returncode == 0
    assert "no service works on this store" in waiting.stderr
    assert "`agola-core run` would cancel it" in waiting.stderr
    refused = used.run("runs", "restart", "2")
    assert refused.returncode == 4
    assert "1 run in it did not end" in refused.stderr
    stopped = used.run("run", ".")
    assert f"run {waiting.stdout.strip()} was left waiting or interrupted: it is stopped now" in stopped.stderr
    again = used.run("runs", "restart", "2", "--detach").stdout.strip()
    assert used.run("runs", "stop", "last").stderr == f"run {again} is stopped\n"


def test_stop_ends_what_a_killed_run_left_or_says_that_it_does_not(tree, tmp_path, wait_for_line, kill_now):
    lock = tmp_path / "lock"
    lock.touch()
    tree.configure(f"""
        runs:
          - name: long
            tasks: [{{name: build, steps: [{{run: "exec 9<{lock}; flock 9; echo begun; exec sleep 1000"}}]}}]
        """)
    for others in (False, True):
        process = tree.start("run", ".")
        wait_for_line(process, "| begun")
        kill_now(process)
        if others:
            tree.run("runs", "restart", "1", "--detach")
        last = "last^" if others else "last"
        stopped = tree.run("runs", "stop", last)
        assert stopped.returncode == 0
        held = subprocess.run(["flock", "--nonblock", lock, "true"], check=False).returncode
        assert ("marked to be stopped" in stopped.stderr, held) == (others, int(others)), stopped.stderr
        if others:
            assert tree.run("runs", "stop", "last").returncode == 0
            assert tree.run("runs", "stop", "last^").stderr.endswith(" is stopped\n")
            assert subprocess.run(["flock", "--nonblock", lock, "true"], check=False).returncode == 0


def test_the_name_of_a_matrix_means_all_its_tasks(tree):
    tree.configure("""
        runs:
          - name: m
            tasks:
              - name: build
                steps:
                  - matrix: {os: [a, b]}
                  - run: echo ${{ matrix.os }} > f
                  - save_to_workspace: {contents: [{paths: [f]}]}
              - {name: builder, steps: [{run: echo other}]}
        """)
    assert tree.run("run", ".").returncode == 0
    shown = tree.run("runs", "logs", "last", "--task", "build").stderr
    assert "build (" in shown
    assert "builder" not in shown
    assert len(tree.run("runs", "artifacts", "last", "--task", "build").stdout.splitlines()) == 2


def test_run_failed_runs_again_what_did_not_succeed(used):
    (used.path / ".agola/config.yml").write_text("runs: []")  # its own configuration is taken
    last = used.runs()[0]["run"]["id"]
    assert "leave --task out" in used.run("run", "--failed", "--task", "build").stderr
    done = used.run("run", "--failed", "--env", "FAIL=")
    assert f"again: run {last} 'two' #2 of /user/local/branch/master" in done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run 'two' #3: success" in done.stdout
    assert "build  |" not in done.stdout
    refused = used.run("run", "--failed")
    assert refused.returncode == 2
    assert "nothing of it failed" in refused.stderr


def test_whatever_is_shown_can_be_typed(used):
    newest, oldest = (item["run"]["id"] for item in used.runs())
    for name, run_id in [
        ("2", newest),
        ("#2", newest),
        ("1", oldest),
        ("last", newest),
        ("last^", oldest),
        ("last~1", oldest),
        (oldest, oldest),
        (oldest[:-1], None),
        ("0", None),
    ]:
        done = used.run("runs", "show", name, "--json")
        if run_id is None:
            assert done.returncode == 2, name
        else:
            assert json.loads(done.stdout)["run"]["id"] == run_id, name
    several = used.run("runs", "show", newest[:20])
    assert f"{newest[:20]!r} is 2 runs, give more of the id: " in several.stderr
    subprocess.run(["git", "init", "-q", used.path], check=True)
    used.run("directrun", "start", "--user-id", "alice", "--env", "FAIL=yes")
    other = used.runs()[0]["run"]["id"]
    for command in (["show"], ["logs"], ["stop"], ["restart"], ["artifacts"], ["delete"]):
        several = used.run("runs", *command, "#1")
        assert several.returncode == 2, command
        assert f"'#1' is 2 runs, each user and project counts its own: {other} (/user/alice/branch/" in several.stderr
        assert several.stderr.rstrip().endswith(f", {oldest} (/user/local/branch/master)")
    assert "no run '#7'" in used.run("runs", "show", "#7").stderr
    assert "no run 'last^^^'" in used.run("runs", "show", "last^^^").stderr
    tasks = json.loads(used.run("runs", "show", "2", "--json").stdout)["tasks"]
    assert [(task["name"], task["status"]) for task in tasks] == [("build", "success"), ("try it", "failed")]


def test_lists_fit_a_narrow_terminal_and_keep_their_ids(used):
    for columns in ("40", "80"):
        done = used.run("runs", "list", env={"COLUMNS": columns})
        assert max(map(len, done.stdout.splitlines())) <= int(columns)
        assert all(item["run"]["id"] in done.stdout for item in used.runs())
    assert done.stderr == "left out, as the terminal is narrow: BRANCH, COMMIT, GROUP\n"


def test_a_graph_fits_a_narrow_terminal(tree):
    names = [f"a task with a long name {number}" for number in range(4)]
    tasks = "".join(f"{{name: {name}, steps: [{{run: 'true'}}]}}, " for name in names)
    tree.configure(f"""
        runs: [{{name: r, tasks: [{tasks} {{name: last, depends: {json.dumps(names)}, steps: [{{run: "true"}}]}}]}}]
        """)
    assert tree.run("run", ".").returncode == 0
    narrow = tree.run("runs", "show", "1", env={"COLUMNS": "60"}).stdout.splitlines()
    assert max(map(len, narrow[1:])) <= 60
    assert "last (after 4 tasks):" in narrow[-1]
    assert ", ".join(names) in tree.run("runs", "show", "1", env={"COLUMNS": "200"}).stdout


def test_what_waits_and_what_is_ignored_is_shown_as_such(tree, wait_for_line):
    tree.configure("""
        runs:
          - name: checks
            tasks:
              - {name: tolerated, ignore_failure: true, steps: [{run: exit 3}]}
              - {name: first, depends: [{tolerated: [on_failure]}], approval: true, steps: [{run: "true"}]}
              - {name: later, depends: [first], steps: [{run: "true"}]}
        """)
    process = tree.start("run", ".", "--data-dir", tree.data_dir)
    waits = wait_for_line(process, "waits for approval")[-1]
    assert waits.rstrip().endswith(f" first --data-dir {tree.data_dir}")
    shown = tree.run("runs", "show", "last").stdout
    assert "later (after first):" in shown
    assert "notstarted" not in shown
    assert "waiting" in shown
    assert "waits for approval" in shown
    assert "failed (exit code 3) ignored" in shown
    assert tree.run("runs", "approve", "1", "first").returncode == 0
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_queued_run_says_what_it_waits_for(used):
    for number in ("2", "3"):
        used.run("runs", "restart", number, "--from-start", "--detach")
        if number == "2":
            waiting = used.runs()[0]["run"]["id"]
            break
    used.run("runs", "restart", "1", "--from-start", "--detach")
    assert f"it waits for run {waiting} #3 of its group" in used.run("runs", "show", "last").stdout


def test_what_is_misspelt_is_named(used, tmp_path):
    refused = used.run("run", ".", "--env", "NOSUCHVAR")
    assert refused.returncode == 2
    assert "NOSUCHVAR: there is no such variable here" in refused.stderr
    assert "warning: --var typo: no from_variable" in used.run("run", ".", "--var", "typo=1").stderr
    file = tmp_path / "ci.env"
    file.write_text("# for the tests\n\nFAIL=yes\n")
    for arguments, told in [
        (["run", "--env", "A B=c"], "'A B' is no name of a variable"),
        (["run", "--graph"], "One of: text, dot, mermaid."),
        (["runs", "logs", "last", "--step", "x"], "'x' is not a whole number such as 10"),
        (["runs", "restart", "1"], "say --from-start"),
    ]:
        refused = used.run(*arguments)
        assert refused.returncode == 2
        assert told in refused.stderr
    assert used.run("run", ".", "--env-file", file).returncode == 1
    assert used.run("run", ".", "--env-file", file, "--env", "FAIL=").returncode == 0
    file.write_text("FAIL=yes\nNOSUCHVAR\n")
    assert f"--env-file {file}:2: NOSUCHVAR" in used.run("run", ".", "--env-file", file).stderr


def test_no_more_tasks_than_jobs_run_at_once(tree, tmp_path):
    tasks = "".join(
        f"""
              - name: task {n}
                steps: [{{run: 'mkdir {tmp_path}/lock && sleep 0.1 && rmdir {tmp_path}/lock'}}]"""
        for n in range(4)
    )
    tree.configure(f"""
        runs:
          - name: checks
            tasks:{tasks}
        """)
    done = tree.run("run", ".", "-j", "1")
    assert done.returncode == 0, done.stdout
    done = on_one_processor(tree, "run", ".")
    assert done.returncode == 0, done.stdout
    for name, option in (("run", "jobs"), ("serve", "tasks"), ("executor", "tasks")):
        command = cli.get_command(click.Context(cli), name)
        parameter = next(item for item in command.params if item.name == option)
        assert parameter.default is processors


def on_one_processor(tree, *arguments):
    limit = "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    start = f"{limit}; os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", start, *tree.command(*arguments)]
    return subprocess.run(command, cwd=tree.path, env=tree.environment(), capture_output=True, text=True, check=False)


def test_an_export_says_that_it_replaces_a_file(used, tmp_path):
    file = tmp_path / "backup.zst"
    assert "replaced" not in used.run("export", "-o", file).stderr
    assert "the file that was there is replaced" in used.run("export", "-o", file).stderr


def test_deleting_asks_first(used):
    assert "would be deleted" in used.run("runs", "delete", "last", "--dry-run").stdout
    refused = used.run("runs", "delete", "last")
    assert refused.returncode == 2
    assert "say --yes" in refused.stderr
    assert len(used.runs()) == 2
    assert used.run("runs", "delete", "last", "--yes").returncode == 0
    assert [item["state"] for item in used.runs()] == ["success"]


def test_a_settings_file_gives_defaults_below_environment_and_arguments(used):
    file = used.path / "agola-core.toml"
    file.write_text('output_format = "csv"\n[runs.list]\nlimit = 0\n')
    assert used.run("runs", "list").stdout.splitlines() == ["id,number,name,state,time,date,branch,commit,group"]
    assert len(used.run("runs", "list", env={"AGOLA_RUNS_LIST_LIMIT": "1"}).stdout.splitlines()) == 2
    both = used.run("runs", "list", "--limit", "2", env={"AGOLA_RUNS_LIST_LIMIT": "1"})
    assert len(both.stdout.splitlines()) == 3
    shown = json.loads(used.run("config", "show", "--json").stdout)
    found = {(row["command"], row["option"]): (row["value"], row["source"]) for row in shown["options"]}
    assert found["runs list", "limit"] == (0, str(file))
    assert found["runs list", "output_format"] == ("csv", str(file))
    assert found["runs list", "data_dir"] == (str(used.data_dir), "AGOLA_DATA_DIR")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limt = 1", "limt: no command has this option; did you mean 'limit'?"),
        ("[runs.lst]\nlimit = 1", "runs.lst: no such command; did you mean 'list'?"),
        ("[runs.list]\nlimits = 1", "runs.list.limits: no such option; did you mean 'limit'?"),
        ("[runs", "agola-core.toml: "),
        ("runs = 1", "runs: expected a table"),
        ('[runs.list]\nlimit = "many"', "'many' is not a whole number such as 10"),
    ],
)
def test_a_wrong_settings_file_is_named(used, text, message):
    (used.path / "agola-core.toml").write_text(text)
    done = used.run("runs", "list")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(tree, shell):
    done = tree.run("completion", shell)
    assert done.returncode == 0
    assert "agola" in done.stdout


def test_the_shell_completes_commands(tree):
    done = tree.run(env={"_AGOLA_CORE_COMPLETE": "bash_complete", "COMP_WORDS": "agola-core run", "COMP_CWORD": "1"})
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == {"run", "runs"}
