"""Reads a run configuration and checks it: Agola's rules, and one error that says where."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from agola_core.errors import ConfigError
from agola_core.runconfig.document import Node, load_document
from agola_core.runconfig.jsonnet import evaluate
from agola_core.runconfig.model import (
    Config,
    ContainerDefinition,
    Dependency,
    Logins,
    RegistryLogin,
    RunDefinition,
    RuntimeDefinition,
    TaskDefinition,
)
from agola_core.runconfig.steps import parse_duration, parse_environment, parse_name, parse_step, parse_value
from agola_core.runconfig.when import When, parse_when
from agola_core.runservice.graph import graph_errors
from agola_core.runservice.types import Depend, DependCondition, RunConfigTask

CONFIG_FILES = (".agola/config.jsonnet", ".agola/config.json", ".agola/config.yml")
"""Where a configuration is looked for, in this order."""

_DEFAULT_WORKING_DIR = "~/project"
_ARCHS = ("386", "amd64", "arm", "arm64")
_TASK_KEYS = (
    "name",
    "runtime",
    "environment",
    "working_dir",
    "shell",
    "user",
    "steps",
    "when",
    "ignore_failure",
    "approval",
    "depends",
    "docker_registries_auth",
    "timeout",
    "max_attempts",
    "labels",
)


def find_config(directory: Path) -> Path:
    """Return the configuration file of a tree.

    Raises:
        ConfigError: There is none.
    """
    for name in CONFIG_FILES:
        if (directory / name).is_file():
            return directory / name
    raise ConfigError(f"no run configuration: looked for {', '.join(CONFIG_FILES)}", source=str(directory))


def load_config(path: Path) -> Config:
    """Return the configuration in a file: YAML, or by its ending JSON or jsonnet.

    Raises:
        ConfigError: It cannot be read, or anything in it is wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", source=str(path)) from error
    if path.suffix == ".jsonnet":  # the lines of what it evaluates to are nobody's
        return parse_config(evaluate(path, str(path)), str(path), strict_json=True, lines=False)
    return parse_config(data, str(path), strict_json=path.suffix == ".json")


def parse_config(data: bytes, source: str, *, strict_json: bool = False, lines: bool = True) -> Config:
    """Return the configuration that a document says.

    Args:
        data: The document.
        source: The file, for errors.
        strict_json: Whether it must be JSON.
        lines: Whether errors name lines.

    Raises:
        ConfigError: Anything in it is wrong: the first thing, with its line and place.
    """
    root = load_document(data, source, strict_json=strict_json, lines=lines)
    found = root.mapping(("runs", "docker_registries_auth"))
    if "runs" not in found:
        raise root.error("no runs defined")
    nodes = found["runs"].items()
    if not nodes:
        raise found["runs"].error("no runs defined")
    runs = tuple(_run(node) for node in nodes)
    _check_unique("run", [run.name for run in runs], nodes)
    return Config(runs, _logins(found))


def _run(node: Node) -> RunDefinition:
    found = node.mapping(("name", "when", "docker_registries_auth", "tasks"))
    name = _required_name(node, found, "run")
    if "tasks" not in found or not found["tasks"].items():
        raise node.error(f"run {name!r} has no tasks")
    nodes = found["tasks"].items()
    tasks = tuple(_task(item) for item in nodes)
    _check_unique("task", [task.name for task in tasks], nodes)
    _check_graph(tasks, nodes)
    return RunDefinition(name, tasks, _when(found), _logins(found))


def _task(node: Node) -> TaskDefinition:
    found = node.mapping(_TASK_KEYS)
    steps = found["steps"].items() if "steps" in found else []
    return TaskDefinition(
        name=_required_name(node, found, "task"),
        steps=tuple(parse_step(item) for item in steps),
        runtime=_runtime(found["runtime"]) if "runtime" in found else RuntimeDefinition(),
        environment=parse_environment(found["environment"]) if "environment" in found else {},
        working_dir=_text(found, "working_dir") or _DEFAULT_WORKING_DIR,
        shell=_text(found, "shell"),
        user=_text(found, "user"),
        when=_when(found),
        ignore_failure=_flag(found, "ignore_failure"),
        approval=_flag(found, "approval"),
        depends=_depends(found["depends"]) if "depends" in found else (),
        docker_registries_auth=_logins(found),
        timeout=parse_duration(found["timeout"]) if "timeout" in found else 0.0,
        max_attempts=int(found["max_attempts"].number()) if "max_attempts" in found else 0,
        labels={key: node.text() for key, node in found["labels"].mapping().items()} if "labels" in found else {},
    )


def _runtime(node: Node) -> RuntimeDefinition:
    found = node.mapping(("type", "arch", "containers"))
    kind = _text(found, "type") or "pod"
    if kind != "pod":
        raise found["type"].error(f"unknown runtime type {kind!r}; known is pod")
    arch = _text(found, "arch")
    if arch and arch not in _ARCHS:
        raise found["arch"].error(f"unknown arch {arch!r}; known are {', '.join(_ARCHS)}")
    if "containers" not in found or not found["containers"].items():
        raise node.error("a runtime needs at least one container")
    return RuntimeDefinition(kind, arch, tuple(_container(item) for item in found["containers"].items()))


def _container(node: Node) -> ContainerDefinition:
    found = node.mapping(("image", "environment", "user", "privileged", "entrypoint"))
    return ContainerDefinition(
        _text(found, "image"),
        parse_environment(found["environment"]) if "environment" in found else {},
        _text(found, "user"),
        _flag(found, "privileged"),
        _text(found, "entrypoint"),
    )


def _depends(node: Node) -> tuple[Dependency, ...]:
    return tuple(_dependency(item) for item in node.items())


def _dependency(node: Node) -> Dependency:
    if isinstance(node.value, str):
        return Dependency(node.text())
    found = node.mapping()
    if "task" in found and not isinstance(found["task"].value, list):  # else it is a task of that name
        node.mapping(("task", "conditions"))
        conditions = _conditions(found["conditions"]) if "conditions" in found else ()
        return Dependency(found["task"].text(), conditions or (DependCondition.ON_SUCCESS,))
    if len(found) != 1:
        raise node.error("a dependency is a task's name, or a mapping from one name to its conditions")
    ((name, inner),) = found.items()
    return Dependency(name, _conditions(inner) or (DependCondition.ON_SUCCESS,))


def _conditions(node: Node) -> tuple[DependCondition, ...]:
    conditions = []
    for item in node.items():
        try:
            conditions.append(DependCondition(item.text()))
        except ValueError as error:
            known = ", ".join(DependCondition)
            raise item.error(f"unknown condition {item.text()!r}; known are {known}") from error
    return tuple(conditions)


def _logins(found: dict[str, Node]) -> Logins:
    if "docker_registries_auth" not in found:
        return {}
    return {name: _login(node) for name, node in found["docker_registries_auth"].mapping().items()}


def _login(node: Node) -> RegistryLogin:
    found = node.mapping(("type", "username", "password", "auth"))
    kind = _text(found, "type") or "basic"
    if kind not in {"basic", "encodedauth"}:
        raise found["type"].error(f"unknown type {kind!r}; known are basic, encodedauth")
    values = {key: parse_value(found[key]) for key in ("username", "password", "auth") if key in found}
    return RegistryLogin(kind, **values)


def _when(found: dict[str, Node]) -> When | None:
    return parse_when(found["when"]) if "when" in found else None


def _required_name(node: Node, found: dict[str, Node], kind: str) -> str:
    if "name" not in found:
        raise node.error(f"a {kind} needs a name")
    return parse_name(found["name"])


def _text(found: dict[str, Node], key: str) -> str:
    return found[key].text() if key in found and found[key].value is not None else ""


def _flag(found: dict[str, Node], key: str) -> bool:
    return found[key].boolean() if key in found else False


def _check_unique(kind: str, names: list[str], nodes: list[Node]) -> None:
    counts = Counter(names)
    for name, node in zip(names, nodes, strict=True):
        if counts[name] > 1:
            raise node.error(f"duplicate {kind} name {name!r}")


def _check_graph(tasks: tuple[TaskDefinition, ...], nodes: list[Node]) -> None:
    known = {task.name for task in tasks}
    for task, node in zip(tasks, nodes, strict=True):
        names = [dependency.task for dependency in task.depends]
        for name in names:
            if name not in known:
                raise node.mapping()["depends"].error(f"task {task.name!r} depends on unknown task {name!r}")
            if names.count(name) > 1:
                raise node.mapping()["depends"].error(f"task {task.name!r} depends on {name!r} twice")
    graph = {
        task.name: RunConfigTask(
            id=task.name,
            name=task.name,
            depends={dependency.task: Depend(task_id=dependency.task) for dependency in task.depends},
        )
        for task in tasks
    }
    for problem in graph_errors(graph):
        concerned = [node for task, node in zip(tasks, nodes, strict=True) if repr(task.name) in problem]
        raise (concerned or nodes)[0].error(problem)
