"""The run configuration: what it says, and what is wrong with it."""

import contextlib
import itertools

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agola_core.errors import ConfigError
from agola_core.runconfig import RunContext, parse_config, run_tasks
from agola_core.runconfig.convert import choose_runs
from agola_core.runconfig.when import matches, parse_when
from agola_core.runservice.model.types import DependCondition, RestoreCacheStep, RunStep, SaveCacheStep


def parse(text):
    return parse_config(text.encode(), "config.yml")


def tasks_of(text, **context):
    config = parse(text)
    numbers = itertools.count()
    found = run_tasks(config, config.runs[0], RunContext(**context), lambda: f"id{next(numbers)}")
    return {task.name: task for task in found.values()}


FULL = """
docker_registries_auth: {reg: {type: basic, username: u, password: {from_variable: PW}}}
runs:
  - name: tests
    tasks:
      - name: build
        runtime:
          type: pod
          arch: amd64
          containers: [{image: debian, environment: {A: {from_variable: X}}, user: u, privileged: true}]
        environment: {N: 1, T: true, V: {from_variable: X}, MISSING: {from_variable: Y}}
        working_dir: /w
        shell: /bin/bash -e
        user: me
        timeout: 10m
        steps:
          - clone:
          - clone
          - run: make
          - run: {command: "a\\nb", name: many, environment: {A: b}, working_dir: d, shell: s, user: v}
          - type: run
            name: long form
            command: |
              a
              b
          - save_cache: {key: 'k-{{ md5sum "lock" }}', contents: [{source_dir: /c}]}
          - restore_cache: {keys: [k-, other], dest_dir: /c}
          - {type: save_to_workspace, contents: [{source_dir: d, dest_dir: e, paths: ["**/*.o"]}]}
          - restore_workspace: {dest_dir: .}
      - name: second
        depends: [build]
        ignore_failure: true
        approval: true
        steps: [run: x]
      - name: third
        depends: [{second: [on_success, on_failure]}]
        when: {branch: main}
      - name: fourth
        depends: [{task: third, conditions: [on_skipped]}]
        docker_registries_auth: {other: {type: encodedauth, auth: abc}}
"""


def test_everything_that_the_format_has():
    tasks = tasks_of(FULL, branch="dev", variables={"X": "x", "PW": "secret"}, source="src")
    build = tasks["build"]
    assert build.environment == {"N": "1", "T": "true", "V": "x", "MISSING": ""}
    assert (build.working_dir, build.shell, build.user, build.timeout) == ("/w", "/bin/bash -e", "me", 600)
    assert build.runtime.containers[0].environment == {"A": "x"}
    assert build.docker_registries_auth["reg"].password == "secret"
    assert [step.source for step in build.steps[:2]] == ["src", "src"]
    assert build.steps[2] == RunStep(name="make", command="make")
    assert build.steps[4].command == "a\nb\n"
    assert isinstance(build.steps[5], SaveCacheStep)
    assert build.steps[6] == RestoreCacheStep(name="restore cache", keys=["k-", "other"], dest_dir="/c")
    assert tasks["second"].needs_approval
    assert tasks["second"].ignore_failure
    assert tasks["second"].depends[build.id].conditions == [DependCondition.ON_SUCCESS]
    (depend,) = tasks["third"].depends.values()
    assert depend.conditions == [DependCondition.ON_SUCCESS, DependCondition.ON_FAILURE]
    assert tasks["third"].skip
    assert not tasks["fourth"].skip
    assert set(tasks["fourth"].docker_registries_auth) == {"reg", "other"}


def test_without_a_source_clone_fetches_the_repository():
    step = tasks_of("runs: [{name: r, tasks: [{name: t, steps: [clone]}]}]")["t"].steps[0]
    assert step.source == ""
    assert "AGOLA_REPOSITORY_URL" in step.command


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "config.yml: the file is empty"),
        ("[]", "expected a mapping, not a list"),
        ("a: 1", "no runs defined"),
        ("runs: []", "no runs defined"),
        ("runs: [{tasks: [{name: t}]}]", "runs[0]: a run needs a name"),
        ("runs: [{name: '', tasks: [{name: t}]}]", "the name is empty"),
        (f"runs: [{{name: {'x' * 101}, tasks: [{{name: t}}]}}]", "longer than 100 bytes"),
        (f"runs: [{{name: {'ü' * 51}, tasks: [{{name: t}}]}}]", "longer than 100 bytes"),
        ("runs: [{name: r, tasks: [{name: t}, {name: t}]}]", "duplicate task name 't'"),
        ("runs: [{name: r, tasks: [{name: t}]}, {name: r, tasks: [{name: t}]}]", "runs[0]: duplicate run name"),
        ("runs: [{name: r, tasks: [{name: t, steps: [{run: 'a\n\n  b'}]}]}]", "several lines needs a name"),
        ("runs: [{name: r, tasks: [{name: t, steps: [{run: {}}]}]}]", "steps[0].run: a run step needs a command"),
        ("runs: [{name: r, tasks: [{name: t, steps: [{run: x, name: y}]}]}]", "a step has one key"),
        ("runs: [{name: r, tasks: [{name: t, steps: [{save_cache: {}}]}]}]", "save_cache needs a key"),
        ("runs: [{name: r, tasks: [{name: t, steps: [{restore_cache: {}}]}]}]", "restore_cache needs keys"),
        ("runs: [{name: r, tasks: [{name: t, runtime: {arch: z80, containers: [{}]}}]}]", "unknown arch 'z80'"),
        ("runs: [{name: r, tasks: [{name: t, runtime: {}}]}]", "at least one container"),
        ("runs: [{name: r, tasks: [{name: t, depends: [t]}]}]", "circular dependency between tasks 't' -> 't'"),
        ("runs: [{name: r, tasks: [{name: t, timeout: soon}]}]", "expected seconds"),
        ("runs: [{name: r, tasks: [{name: t, ignore_failure: maybe}]}]", "expected true or false"),
        ("runs: [{name: r, when: {branch: '/(/'}, tasks: [{name: t}]}]", "not a regular expression"),
        (
            "runs: [{name: r, tasks: [{name: a}, {name: b, depends: [a]}, {name: c, depends: [a, b]}]}]",
            "task 'c' and its dependency 'b' both depend on 'a'",
        ),
        (
            "runs: [{name: r, tasks: [{name: a}, {name: b, depends: [{a: on_success}]}]}]",
            "depends[0]: a dependency is a task's name, or a mapping from one name to a list of its conditions",
        ),
        (
            """runs: [{name: r, tasks: [
                {name: a}, {name: b, depends: [a]}, {name: c, depends: [b]}, {name: d, depends: [c, a]}]}]""",
            "task 'd' and its dependency 'c' both depend on 'a'",
        ),
        ("a: &a [x]\nruns: [*a, *a]", "runs[0]: expected a mapping, not a list"),
        ("runs: &a [*a]", "the value of anchor 'a' contains itself"),
        ("runs: *a", "unknown anchor 'a'"),
        ("x: {<<: 1}", "a merge needs a mapping"),
        ("x: {[a]: 1}", "a key must be a string"),
        ("x: !!int a\nruns: []", "'a' is not of the type that its tag says: int"),
        ("x: .inf\nruns: [{name: r}]", ".inf is no number of JSON"),
        ("\x00", "not YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, message):
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert message in str(error.value)
    assert str(error.value).startswith("config.yml")


def test_an_entity_expansion_is_refused():
    text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for one, two in itertools.pairwise("abcdefgh"):
        text += f"{two}: &{two} [{', '.join([f'*{one}'] * 10)}]\n"
    with pytest.raises(ConfigError, match="too large"):
        parse(text)


@pytest.mark.parametrize(
    ("when", "branch", "tag", "ref", "expected"),
    [
        ("{branch: main}", "main", "", "", True),
        ("{branch: main}", "maintenance", "", "", False),
        ("{branch: '/^main/'}", "maintenance", "", "", True),
        ("{branch: '#tena#'}", "maintenance", "", "", True),
        ("{branch: [a, b]}", "b", "", "", True),
        ("{branch: {include: '/.*/', exclude: wip}}", "wip", "", "", False),
        ("{tag: v1}", "", "", "", False),
        ("{tag: '/.*/'}", "main", "", "refs/heads/main", False),
        ("{branch: other, tag: v1}", "main", "v1", "", True),
        ("{ref: '#refs/pull/.*#'}", "", "", "refs/pull/1/head", True),
        ("{branch: {include: main}, ref: {exclude: refs/heads/main}}", "main", "", "refs/heads/main", False),
    ],
)
def test_conditions(when, branch, tag, ref, expected):
    from agola_core.runconfig.yaml.document import load_document

    parsed = parse_when(load_document(when.encode(), "w", [].append)[0])
    assert matches(parsed, branch=branch, tag=tag, ref=ref) is expected
    assert matches(None, branch="", tag="", ref="")


def test_runs_are_chosen_by_condition_or_name():
    config = parse("runs: [{name: a, when: {branch: x}, tasks: [{name: t}]}, {name: b, tasks: [{name: t}]}]")
    assert [run.name for run in choose_runs(config, RunContext())] == ["b"]
    assert [run.name for run in choose_runs(config, RunContext(), "a")] == ["a"]
    with pytest.raises(ConfigError, match="no run 'c'; there are 'a', 'b'"):
        choose_runs(config, RunContext(), "c")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
words = st.sampled_from(
    ["runs", "name", "tasks", "steps", "run", "clone", "depends", "when", "branch", "runtime", "type", "environment"]
)
documents = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=4), inner, max_size=4),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None)
@given(documents)
def test_any_document_is_a_configuration_or_an_error(document):
    with contextlib.suppress(ConfigError):
        parse(yaml.safe_dump(document))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(st.sampled_from(" -:[]{}'\"&*!|>#%@\nruns"), max_size=60).map(str.encode))
def test_any_bytes_are_a_configuration_or_an_error(data):
    with contextlib.suppress(ConfigError):
        parse_config(data, "x")
