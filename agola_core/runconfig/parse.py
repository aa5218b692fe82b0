"""Parses and checks a run configuration by Agola's rules; an error names the line and the place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from agola_core.errors import ConfigError
from agola_core.runconfig.findings import Finding, FindingKind
from agola_core.runconfig.model import Config, RunDefinition, RuntimeDefinition, TaskDefinition
from agola_core.runconfig.tasks.dependencies import check_graph, expand_depends, parse_depends
from agola_core.runconfig.tasks.matrix import TaskCell, expand_task
from agola_core.runconfig.tasks.runtime import parse_logins, parse_runtime
from agola_core.runconfig.tasks.steps import parse_step
from agola_core.runconfig.values import (
    check_name,
    parse_attempts,
    parse_duration,
    parse_environment,
    parse_interval,
    parse_labels,
)
from agola_core.runconfig.when import parse_when
from agola_core.runconfig.yaml.document import Fields, Known, Node, load_document

CONFIG_FILES = (".agola/config.jsonnet", ".agola/config.json", ".agola/config.yml")
"""Where a configuration is looked for, in this order."""

_STARLARK = ".agola/config.star"
_DEFAULT_WORKING_DIR = "~/project"
_CONFIG: Known = {
    **dict.fromkeys(("runs", "docker_registries_auth", "task_timeout_interval"), ""),
    "version": "version is ignored: no Agola reads it",
}
_RUN: Known = dict.fromkeys(("name", "when", "docker_registries_auth", "task_timeout_interval", "tasks"), "")
_TASK: Known = {
    **dict.fromkeys(("name", "runtime", "environment", "working_dir", "shell", "user", "steps", "when", "depends"), ""),
    **dict.fromkeys(("ignore_failure", "approval", "docker_registries_auth", "task_timeout_interval"), ""),
    **dict.fromkeys(("timeout", "max_attempts", "labels"), ""),
    "matrix": "matrix is ignored here, as in Agola: a matrix is the first of the task's steps",
}
_ADDITIONS = ("timeout", "max_attempts", "labels")


def find_config(directory: Path) -> Path:
    """Return the configuration file of a tree.

    Raises:
        ConfigError: There is none.
    """
    for name in CONFIG_FILES:
        if (directory / name).is_file():
            return directory / name
    if (directory / _STARLARK).is_file():
        return directory / _STARLARK
    raise ConfigError(f"no run configuration: looked for {', '.join(CONFIG_FILES)}", source=str(directory))


def load_config(path: Path, findings: list[Finding] | None = None, context: Mapping[str, str] | None = None) -> Config:
    """Load the configuration in a file: YAML (which includes JSON) or, by its extension, jsonnet.

    Args:
        path: The file.
        findings: Gets the findings, even if an error is raised.
        context: The argument `ctx` for a jsonnet file that is a function, as in Agola 0.6 and later.

    Raises:
        ConfigError: The file cannot be read or is invalid.
    """
    source = str(path)
    found: list[Finding] = [] if findings is None else findings
    if path.suffix == ".star":
        found.append(Finding(FindingKind.OWN_ERROR, "Agola 0.2 does not look for such a file", source))
        raise ConfigError(_NO_STARLARK, source=source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", source=source) from error
    if path.suffix == ".jsonnet":  # lines of the resulting JSON mean nothing to users
        from agola_core.runconfig.jsonnet import evaluate  # noqa: PLC0415 - few use it

        return parse_config(evaluate(path, source, context or {}, found.append), source, lines=False, findings=found)
    return parse_config(data, source, findings=found)


_NO_STARLARK = (
    "configurations in Starlark (Agola 0.6 and later) are not read here: that takes an interpreter of the language; "
    "write it in jsonnet, or print what its main function returns as JSON into .agola/config.json"
)


def parse_config(data: bytes, source: str, *, lines: bool = True, findings: list[Finding] | None = None) -> Config:
    """Parse a configuration.

    Args:
        data: YAML, which includes JSON.
        source: The file, for errors.
        lines: Whether errors name lines.
        findings: Gets the findings, even if an error is raised.

    Raises:
        ConfigError: It is invalid: the first error, with its line and place.
    """
    found_here: list[Finding] = [] if findings is None else findings
    before = len(found_here)
    root, reading = load_document(data, source, found_here.append, lines=lines)
    found = root.fields(_CONFIG)
    nodes = found.items_of("runs")
    if not nodes:
        raise found.get("runs", root).error("no runs defined")
    runs = tuple(_run(node) for node in nodes)
    _check_unique("run", [run.name for run in runs], nodes)
    logins, timeout = found.parse("docker_registries_auth", parse_logins) or {}, _interval(found)
    reading.finish()
    found_here[before:] = sorted(found_here[before:], key=lambda finding: finding.line or 0)
    return Config(runs, logins, timeout, tuple(found_here[before:]))


def _run(node: Node) -> RunDefinition:
    found = node.fields(_RUN)
    name = _name(node, found, "run")
    nodes = found.items_of("tasks")
    if not nodes:
        node.note(f"run {name!r} has no tasks: it can be read, but not made")
    tasks, nodes = _tasks(nodes)
    _check_unique("task", [task.name for task in tasks], nodes)
    check_graph(tasks, nodes)
    return RunDefinition(
        name,
        tasks,
        found.parse("when", parse_when),
        found.parse("docker_registries_auth", parse_logins) or {},
        _interval(found),
    )


def _tasks(nodes: list[Node]) -> tuple[tuple[TaskDefinition, ...], list[Node]]:
    """Return the tasks of a run, those of a matrix one by one, and the node of each."""
    tasks: list[TaskDefinition] = []
    places: list[Node] = []
    names: list[str] = []
    groups: dict[str, list[str]] = {}
    for node in nodes:
        cells = expand_task(node)
        made = [_task(cell) for cell in cells]
        tasks += made
        places += [cell.node for cell in cells]
        names.append(made[0].name.removesuffix(cells[0].suffix))
        if cells[0].suffix:
            groups[names[-1]] = [task.name for task in made]
    _check_unique("task", names, nodes)
    return tuple(replace(task, depends=expand_depends(task.depends, groups)) for task in tasks), places


def _task(cell: TaskCell) -> TaskDefinition:
    node = cell.node
    found = node.fields(_TASK)
    name = check_name(node, _name(node, found, "task") + cell.suffix)
    for key in _ADDITIONS:
        if key in found:
            found[key].note(f"Agola 0.2 ignores {key}", FindingKind.EXTENSION)
    if "runtime" not in found:
        node.note(f"Agola 0.2 refuses a task without a runtime, such as {name!r}", FindingKind.REFUSED)
    return TaskDefinition(
        name=name,
        steps=tuple(parse_step(item) for item in cell.steps),
        runtime=found.parse("runtime", parse_runtime) or RuntimeDefinition(),
        environment=found.parse("environment", parse_environment) or {},
        working_dir=found.text("working_dir") or _DEFAULT_WORKING_DIR,
        shell=found.text("shell"),
        user=found.text("user"),
        when=found.parse("when", parse_when),
        ignore_failure=found.flag("ignore_failure"),
        approval=found.flag("approval"),
        depends=found.parse("depends", parse_depends) or (),
        docker_registries_auth=found.parse("docker_registries_auth", parse_logins) or {},
        timeout=parse_duration(found["timeout"]) if "timeout" in found else _interval(found),
        max_attempts=found.parse("max_attempts", parse_attempts) or 0,
        labels=found.parse("labels", parse_labels) or {},
    )


def _interval(found: Fields) -> float | None:
    return found.parse("task_timeout_interval", parse_interval)


def _name(node: Node, found: Fields, kind: str) -> str:
    if "name" not in found:
        raise node.error(f"a {kind} needs a name")
    return check_name(found["name"], found["name"].loose_text())


def _check_unique(kind: str, names: list[str], nodes: list[Node]) -> None:
    counts = Counter(names)
    for name, node in zip(names, nodes, strict=True):
        if counts[name] > 1:
            raise node.error(f"duplicate {kind} name {name!r}")
