"""Which tasks `agola-core run` runs, and what it says of them without running any."""

import json
import re

import pytest

GRAPH = """
    runs:
      - name: checks
        tasks:
          - {name: build, steps: [{run: echo built}]}
          - {name: test, depends: [build], steps: [{run: echo tested}]}
          - {name: 'say "hi"', steps: [{run: echo hi}]}
          - {name: never, when: {branch: other}, steps: [{run: exit 1}]}
          - {name: after never, depends: [never], steps: [{run: exit 1}]}
          - {name: deploy, depends: [test], approval: true, steps: [{run: echo deployed}]}
      - name: nightly
        when: {branch: other}
        tasks: [{name: soak, steps: [{run: exit 1}]}]
    """


@pytest.fixture
def graph(tree):
    tree.configure(GRAPH)
    return tree


def test_the_list_says_what_would_run_and_why_not(graph):
    done = graph.run("run", "--list")
    assert done.returncode == 0, done.stderr
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert lines["test"].split() == ["test", "build", "run"]
    assert lines["never"].endswith("be skipped: its `when` does not hold")
    assert lines["after never"].endswith("be skipped: never is skipped")
    assert lines["deploy"].endswith("wait for approval")
    assert "run 'nightly': not run" in done.stdout
    (run,) = json.loads(graph.run("run", "--dry-run", "--json").stdout)
    assert run["run"] == "checks"
    assert [task["name"] for task in run["tasks"] if task["skipped"]] == ["never", "after never"]
    assert graph.run("runs", "list").returncode == 2  # nothing has run


def test_the_graph_in_every_form(graph):
    assert "      deploy (after test)" in graph.run("run", "--graph", "text").stdout.splitlines()
    dot = graph.run("run", "--graph", "dot").stdout
    assert dot.startswith('digraph "checks" {')
    assert '"build" -> "test";' in dot
    assert '"say \\"hi\\"";' in dot
    mermaid = graph.run("run", "--graph", "mermaid").stdout
    assert mermaid.startswith("flowchart TD")
    assert "t0 --> " in mermaid


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--task", "test"], ["build", "test"]),
        (["--task", "test", "--alone"], ["test"]),
        (["--from", "test"], ["deploy", "test"]),
        (["--task", 'say "hi"', "--from", "deploy"], ["deploy", 'say "hi"']),
    ],
)
def test_tasks_are_chosen_by_their_names(graph, arguments, names):
    (run,) = json.loads(graph.run("run", "--list", "--json", *arguments).stdout)
    assert sorted(task["name"] for task in run["tasks"]) == names


def test_only_the_chosen_tasks_run(graph):
    done = graph.run("run", "--task", "test", "--alone")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test | tested" in done.stdout
    assert "built" not in done.stdout
    refused = graph.run("run", "--task", "tset")
    assert refused.returncode == 2
    assert "no task 'tset'; did you mean 'test'?" in refused.stderr
    assert graph.run("run", "--alone").returncode == 2


def test_the_first_failure_stops_the_run(tree, tmp_path):
    gate = tmp_path / "gate"
    tree.configure(f"""
        runs:
          - name: checks
            tasks:
              - {{name: bad, steps: [{{run: 'until [ -e {gate} ]; do sleep 0.05; done; exit 1'}}]}}
              - {{name: slow, steps: [{{run: 'touch {gate}; while true; do sleep 0.1; done'}}]}}
        """)
    done = tree.run("run", ".", "--fail-fast", "-j", "2")
    assert done.returncode == 1
    assert "bad has failed: stopping the run (--fail-fast)" in done.stdout
    assert "slow ■ stopped" in done.stdout


def test_logs_of_what_failed_their_ends_and_their_matches(tree):
    tree.configure("""
        runs:
          - name: checks
            tasks:
              - {name: good, steps: [{run: seq 1 50}]}
              - {name: bad, steps: [{run: echo fine}, {run: "seq 100 150; exit 1"}]}
              - name: long
                steps: [{run: "seq 1 60000; head -c 100000 /dev/zero | tr '\\\\0' x; echo; echo the end"}]
        """)
    done = tree.run("run", ".", "--timestamps", "-j", "4")
    assert done.returncode == 1
    assert re.search(r"^good \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d \| 50$", done.stdout, re.MULTILINE)
    ends = [tree.run("runs", "logs", "last", "--task", "long", "--tail", str(count)).stdout for count in (0, 1, 3)]
    assert ends[:2] == ["", "the end\n"]
    assert [line[:7] for line in ends[2].splitlines()][-1] == "the end"
    assert ends[2].startswith("60000\n") or len(ends[2].splitlines()) == 3  # lines of more than 64 KiB are cut
    assert tree.run("runs", "logs", "last", "--task", "good", "--since", "1h", "--tail", "1").stdout == "50\n"
    assert tree.run("runs", "logs", "last", "--task", "good", "--tail", str(10**15)).stdout.endswith("\n50\n")
    assert tree.run("runs", "logs", "last", "--since", "2999-01-01").stdout == ""
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
    stored = tree.run("runs", "logs", "last", "--task", "good", "--timestamps").stdout
    assert re.fullmatch("".join(f"{time} {number}\n" for number in range(1, 51)), stored)
    followed = tree.run("runs", "logs", "last", "--task", "good", "--timestamps", "-f", "--tail", "2", "--since", "1h")
    assert re.search(rf"good {time} \| 49\ngood {time} \| 50\n", followed.stdout), followed.stdout
    assert "| 48" not in followed.stdout
    failed = tree.run("runs", "logs", "last", "--failed", "--tail", "2")
    assert failed.stdout.split() == ["149", "150"]
    assert failed.stderr.splitlines() == ["--- bad: seq 100 150; exit 1"]
    assert tree.run("runs", "logs", "last", "--task", "bad", "--grep", "^1.9$").stdout.split() == [
        "109",
        "119",
        "129",
        "139",
        "149",
    ]
    wrong = tree.run("runs", "logs", "last", "--grep", "(")
    assert wrong.returncode == 2
    assert "is no regular expression" in wrong.stderr
