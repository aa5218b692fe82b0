"""Configuration files as projects have them: every format, whole, and what is wrong with a broken one."""

import itertools
from pathlib import Path

import pytest

from agola_core.errors import ConfigError
from agola_core.runconfig import RunContext, find_config, load_config, run_tasks
from agola_core.runservice.model.types import DependCondition

DATA = Path(__file__).parents[2] / "data/configs"


def tasks_of(name, **context):
    config = load_config(DATA / name)
    numbers = itertools.count()
    found = run_tasks(config, config.runs[0], RunContext(**context), lambda: f"id{next(numbers)}")
    return {task.name: task for task in found.values()}


def test_a_yaml_file_with_services():
    tasks = tasks_of("services.yml", branch="release-2", variables={"registry_password": "x", "pg": "y"})
    unit = tasks["unit"]
    assert [container.image for container in unit.runtime.containers] == ["registry.example.org/base:1", "postgres:16"]
    assert unit.runtime.containers[1].environment == {"POSTGRES_PASSWORD": "y"}
    assert unit.environment == {"DATABASE_URL": "postgres://localhost/test", "WORKERS": "4", "DEBUG": "false"}
    assert unit.docker_registries_auth["registry.example.org"].type == "basic"
    assert unit.docker_registries_auth["registry.example.org"].password == "x"
    assert unit.docker_registries_auth["index.docker.io"].auth == "cm9ib3Q6c2VjcmV0"
    assert unit.working_dir == "~/project"
    assert unit.steps[4].contents[0].paths == ["**"]
    assert tasks["image"].needs_approval
    assert not tasks["image"].skip
    assert tasks_of("services.yml", branch="dev")["image"].skip
    assert tasks["image"].runtime.containers[0].entrypoint == "dockerd"


def test_a_json_file():
    tasks = tasks_of("plain.json")
    (depend,) = tasks["next"].depends.values()
    assert depend.conditions == [DependCondition.ON_FAILURE]


jsonnet = pytest.mark.skipif(pytest.importorskip("importlib.util").find_spec("_jsonnet") is None, reason="no jsonnet")


@jsonnet
def test_a_jsonnet_file_with_an_import():
    tasks = tasks_of("matrix.jsonnet", tag="v1", variables={"publish_token": "t"})
    assert len(tasks) == 5
    assert tasks["build 3.11 arm64"].runtime.arch == "arm64"
    assert tasks["publish"].environment == {"TOKEN": "t"}
    assert not tasks["publish"].skip
    assert [step.name for step in tasks["publish"].steps] == ["restore workspace", "publish all"]
    assert tasks_of("matrix.jsonnet", branch="dev")["publish"].skip


@jsonnet
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{\n  runs: [\n", "config.jsonnet:3: jsonnet: "),
        ("{\n  runs: error 'no runs today' }", "config.jsonnet:2: jsonnet: RUNTIME ERROR: no runs today"),
        ("{ runs: importstr '/etc/passwd' }", "is not in the directory of the configuration"),
        ("{ runs: importstr '../../secret' }", "is not in the directory of the configuration"),
        ("{ runs: import 'none' }", "none"),
        ("local f(x) = f(x + 1) tailstrict; f(0)", "takes longer"),
        ("{ runs: std.range(1, 1000000000) }", "memory"),
        (
            "{ runs: [{ name: 'r', tasks: [{ name: 't', steps: [{}] }] }] }",
            "runs[0].tasks[0].steps[0]: a step has one key",
        ),
        ("42", "expected a mapping"),
        ("local deep(n) = if n == 0 then [] else [deep(n - 1)]; { runs: deep(300) }", "expected a mapping, not a list"),
        ("{ runs: " + "[" * 2000 + "]" * 2000 + " }", "jsonnet: "),
    ],
)
def test_a_broken_jsonnet_file(tmp_path, text, message):
    (tmp_path / ".agola").mkdir()
    (tmp_path / "secret").write_text("x")
    path = tmp_path / ".agola/config.jsonnet"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(find_config(tmp_path))
    assert message in str(error.value)


def test_where_a_configuration_is_looked_for(tmp_path):
    with pytest.raises(ConfigError, match=r"looked for .agola/config.jsonnet, .agola/config.json, .agola/config.yml"):
        find_config(tmp_path)
    (tmp_path / ".agola").mkdir()
    for name in ("config.yml", "config.json", "config.jsonnet"):
        (tmp_path / ".agola" / name).write_text("x")
        assert find_config(tmp_path).name == name
