"""`agola-core runs`, as a person at a shell meets it."""

import csv
import io
import json

import pytest

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
    assert table[0].split() == ["ID", "NUMBER", "NAME", "STATE", "GROUP", "TIME"]
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
        (["--task", "missing"], "has no task 'missing'"),
        (["-f", "--step", "0"], "leave --step and --setup out"),
        (["--task", "build", "--step", "5"], "no such step"),
    ]:
        done = used.run("runs", "logs", "last", *arguments)
        assert done.returncode == 2, arguments
        assert message in done.stderr


def test_what_has_ended_cannot_be_stopped_or_approved(used):
    assert "has ended" in used.run("runs", "stop", "last").stderr
    assert used.run("runs", "stop", "last").returncode == 2
    assert "no task of run" in used.run("runs", "approve", "last").stderr
    assert "has no task 'x'" in used.run("runs", "approve", "last", "x").stderr


def test_a_restart_without_a_service_waits_for_one(used):
    done = used.run("runs", "restart", "last")
    assert done.returncode == 0, done.stderr
    assert "no service works on this store" in done.stderr
    run = json.loads(used.run("runs", "show", done.stdout.strip(), "--json").stdout)
    assert run["run"]["phase"] == "queued"
    assert used.run("runs", "stop", "last").returncode == 0
    assert used.run("runs", "restart", "last").returncode in {0, 2}


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
    assert used.run("runs", "list").stdout.splitlines() == ["id,number,name,state,group,time"]
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
        ('[runs.list]\nlimit = "many"', "'many' is not a valid integer"),
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
