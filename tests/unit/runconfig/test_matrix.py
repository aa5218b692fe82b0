"""The matrix of a task: which tasks it becomes, who depends on them, and what a real Agola says."""

import textwrap

import pytest

from agola_cli.runs.launch.selection import Selection
from agola_core.errors import ConfigError
from agola_core.runconfig import FindingKind, RunContext, run_tasks
from agola_core.runconfig.parse import parse_config
from agola_core.runconfig.verdict import predict_verdict


def parsed(tasks, findings=None):
    text = "runs:\n- name: r\n  tasks:\n" + textwrap.indent(textwrap.dedent(tasks), "  ")
    return parse_config(text.encode(), "config.yml", findings=findings)


def test_a_matrix_becomes_tasks_with_their_values_filled_in():
    findings = []
    config = parsed(
        """
        - name: test
          runtime: {containers: [{image: "python:{{ matrix.python }}"}]}
          environment: {VERSION: "{{matrix.python}}", 010: "{{ matrix.os }}"}
          depends: ["build ({{ matrix.os }})"]
          steps:
          - matrix:
              python: [3.10, "3.11"]
              os: [linux, mac]
              exclude: [{python: 3.10, os: mac}]
              include: [{python: "3.13", os: linux}]
          - run: tox -e {{ matrix.python }} --on {{ matrix.os }} {{ other }}
          - save_cache: {key: "pip-{{ matrix.python }}-{{ arch }}", contents: [{paths: ["{{ matrix.os }}/**"]}]}
        - name: build
          runtime: &any {containers: [{image: any}]}
          steps: [{type: matrix, os: [linux, mac]}, {run: make}]
        - {name: all, runtime: *any, depends: [{test: [on_success, on_failure]}]}
        - {name: one, runtime: *any, depends: ["test (3.11, mac)"]}
        """,
        findings,
    )
    tasks = {task.name: task for task in config.runs[0].tasks}
    cells = ["test (3.10, linux)", "test (3.11, linux)", "test (3.11, mac)", "test (3.13, linux)"]
    assert list(tasks) == [*cells, "build (linux)", "build (mac)", "all", "one"]
    cell = tasks["test (3.10, linux)"]
    assert cell.runtime.containers[0].image == "python:3.10"
    assert cell.environment == {"VERSION": "3.10", "010": "linux"}
    assert [item.task for item in cell.depends] == ["build (linux)"]
    assert cell.steps[0].command == "tox -e 3.10 --on linux {{ other }}"
    assert (cell.steps[1].key, cell.steps[1].contents[0].paths) == ("pip-3.10-{{ arch }}", ["linux/**"])
    assert [item.task for item in tasks["all"].depends] == cells
    assert all(len(item.conditions) == 2 for item in tasks["all"].depends)
    assert [item.task for item in tasks["one"].depends] == ["test (3.11, mac)"]
    verdict = predict_verdict(findings, refused=False)
    assert verdict.accepts is False
    refused = [finding for finding in findings if finding.kind is FindingKind.REFUSED]
    assert [(item.line, item.place) for item in refused] == [
        (10, "runs[0].tasks[0].steps[0].matrix"),
        (19, "runs[0].tasks[1].steps[0]"),
    ]
    ids = iter(f"t{number}" for number in range(100))
    made = run_tasks(config, config.runs[0], RunContext(), lambda: next(ids))

    def chosen(**names):
        selection = Selection(**names)
        selection.check(set(tasks))
        return sorted(task.name for task in selection.of(made).values())

    assert chosen(names=("test",), alone=True) == cells
    assert chosen(names=("test (3.11, mac)",)) == ["build (mac)", "test (3.11, mac)"]
    assert chosen(starts=("build (mac)",)) == ["all", "build (mac)", "one", "test (3.11, mac)"]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("[matrix]", "6: runs[0].tasks[0].steps[0]: a matrix has lists of values"),
        ("[{matrix: {}}]", "steps[0].matrix: a matrix has lists of values"),
        ("[{matrix: {a: []}}]", "matrix.a: expected a list of values"),
        ("[{matrix: {a: [1, 1]}}]", "matrix.a: a value stands twice"),
        ("[{matrix: {a: [{b: c}]}}]", "matrix.a[0]: expected a string, not a mapping"),
        ('[{matrix: {a: ["x\\ny"]}}]', "matrix.a[0]: a value of a matrix is printable"),
        ("[{matrix: {a b: [1]}}]", "not a name of a matrix's values: 'a b'"),
        ("[{matrix: {a: [1], exclude: [{a: 2}]}}]", "exclude[0]: no combination of the matrix is excluded"),
        ("[{matrix: {a: [1], exclude: [{b: 2}]}}]", "exclude[0].b: the matrix has no 'b'; it has a"),
        ("[{matrix: {a: [1], exclude: [{a: 1}]}}]", "every combination of the matrix is excluded"),
        ("[{matrix: {a: [1], include: [{a: 1}]}}]", "include[0]: the matrix has this combination already"),
        ("[{matrix: {a: [1], b: [2], include: [{a: 2}]}}]", "include[0]: what is included has a value for everything"),
        (f"[{{matrix: {{a: {[*range(257)]}}}}}]", "the matrix has more than 256 combinations"),
        ("[{matrix: {a: [1]}}, {run: 'echo {{ matrix.b }}'}]", "steps[1].run: the matrix has no 'b'; it has a"),
        ("[{run: x}, {matrix: {a: [1]}}]", "steps[1].matrix: a matrix is the first step of its task"),
        (f"[{{matrix: {{a: [{'x' * 100}]}}}}]", "the name is longer than 100 bytes"),
    ],
)
def test_a_wrong_matrix_is_named(steps, message):
    with pytest.raises(ConfigError) as caught:
        parsed(f"\n- name: test\n  steps: {steps}\n")
    assert message in str(caught.value)


def test_names_of_tasks_stay_unique():
    for other in ("test", "test (1)"):
        with pytest.raises(ConfigError, match="duplicate task name"):
            parsed(f"- {{name: test, steps: [{{matrix: {{a: [1, 2]}}}}]}}\n- {{name: {other}}}\n")


def test_a_key_of_that_name_is_ignored_as_agola_does():
    findings = []
    config = parsed("- {name: test, matrix: {a: [1, 2]}}\n", findings)
    assert [task.name for task in config.runs[0].tasks] == ["test"]
    assert any("a matrix is the first of the task's steps" in finding.message for finding in findings)
    assert {finding.kind for finding in findings} >= {FindingKind.WARNING}


def test_what_all_matrices_write_is_bounded():
    steps = "[{matrix: {a: [1, 2, 3, 4]}}, &long {run: '" + "x" * 30_000 + " {{ matrix.a }}'}"
    tasks = f"- {{name: t0, steps: {steps}]}}\n"
    assert len(parsed(tasks).runs[0].tasks) == 4
    tasks += "".join(
        f"- {{name: t{number}, steps: [{{matrix: {{a: [1, 2, 3, 4]}}}}, *long]}}\n" for number in range(1, 40)
    )
    with pytest.raises(ConfigError, match="the matrices of this file make more than 4194304 characters"):
        parsed(tasks)
