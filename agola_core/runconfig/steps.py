"""The steps of a task, in their short and long forms."""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec.structs import replace

from agola_core.runconfig.document import Node
from agola_core.runconfig.model import CloneStep, CommandStep, StepDefinition, Value, Values, Variable
from agola_core.runservice.types import (
    ArchiveContents,
    RestoreCacheStep,
    RestoreWorkspaceStep,
    SaveCacheStep,
    SaveToWorkspaceStep,
)

MAX_NAME = 100
"""The longest name of a run, task or step, in characters."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_step(node: Node) -> StepDefinition:
    """Return a step from its short form (one key, the type), or its long form (a key `type`)."""
    if isinstance(node.value, str):  # "- clone"
        return _parser(node, node.value)(node, {})
    found = node.mapping()
    if "type" in found:
        parse = _parser(found["type"], found["type"].text())
        return parse(node, {key: value for key, value in found.items() if key != "type"})
    if len(found) != 1:
        raise node.error(f"a step has one key, its type, or a key 'type'; found {', '.join(found) or 'none'}")
    ((kind, inner),) = found.items()
    parse = _parser(inner, kind)
    if kind == "run" and isinstance(inner.value, str):
        return parse(inner, {"command": inner})
    return parse(inner, {} if inner.value is None else inner.mapping())


def parse_value(node: Node) -> Value:
    """Return a text, or a reference to a variable."""
    if isinstance(node.value, dict):
        found = node.mapping(("from_variable",))
        if "from_variable" not in found:
            raise node.error("expected a string or from_variable")
        return Variable(found["from_variable"].text())
    return node.text()


def parse_environment(node: Node) -> Values:
    """Return an environment."""
    return {name: parse_value(value) for name, value in node.mapping().items()}


def parse_name(node: Node) -> str:
    """Return a name of at most 100 characters."""
    name = node.text()
    if not name:
        raise node.error("the name is empty")
    if len(name) > MAX_NAME:
        raise node.error(f"the name is longer than {MAX_NAME} characters")
    return name


def parse_duration(node: Node) -> float:
    """Return seconds from a number, or from a text such as `90s`, `10m` or `1h`."""
    if isinstance(node.value, str):
        match = _DURATION.fullmatch(node.value)
        if match is None:
            raise node.error(f"expected seconds, or a duration like 90s, 10m or 1h, not {node.value!r}")
        return float(match[1]) * _SECONDS[match[2]]
    seconds = node.number()
    if not 0 <= seconds < 1e9:
        raise node.error("a timeout must not be negative, nor endless")
    return seconds


Fields = dict[str, Node]


def _parser(node: Node, kind: str) -> Callable[[Node, Fields], StepDefinition]:
    parse = _PARSERS.get(kind)
    if parse is None:
        raise node.error(f"unknown step type {kind!r}; known are {', '.join(sorted(_PARSERS))}")
    return parse


def _clone(node: Node, fields: Fields) -> StepDefinition:
    _check(node, fields, ("name", "depth", "recurse_submodules"))
    return CloneStep(parse_name(fields["name"])) if "name" in fields else CloneStep()


def _run(node: Node, fields: Fields) -> StepDefinition:
    _check(node, fields, ("command", "name", "environment", "working_dir", "shell", "user", "timeout"))
    if "command" not in fields:
        raise node.error("a run step needs a command")
    command = fields["command"].text()
    if "name" in fields:
        name = parse_name(fields["name"])
    elif len(command.strip().splitlines()) > 1:
        raise node.error("a command of several lines needs a name")
    else:
        name = command.strip()[:MAX_NAME]
    return CommandStep(
        name,
        command,
        parse_environment(fields["environment"]) if "environment" in fields else {},
        working_dir=_text(fields, "working_dir"),
        shell=_text(fields, "shell"),
        user=_text(fields, "user"),
        timeout=parse_duration(fields["timeout"]) if "timeout" in fields else 0.0,
    )


def _save_to_workspace(node: Node, fields: Fields) -> StepDefinition:
    _check(node, fields, ("name", "contents"))
    return SaveToWorkspaceStep(name=_name(fields, "save to workspace"), contents=_contents(fields))


def _restore_workspace(node: Node, fields: Fields) -> StepDefinition:
    _check(node, fields, ("name", "dest_dir"))
    return RestoreWorkspaceStep(name=_name(fields, "restore workspace"), dest_dir=_text(fields, "dest_dir"))


def _save_cache(node: Node, fields: Fields) -> StepDefinition:
    _check(node, fields, ("name", "key", "contents"))
    key = _text(fields, "key")
    if not key:
        raise node.error("save_cache needs a key")
    contents = [item if item.paths else replace(item, paths=["**"]) for item in _contents(fields)]
    return SaveCacheStep(name=_name(fields, "save cache"), key=key, contents=contents)


def _restore_cache(node: Node, fields: Fields) -> StepDefinition:
    _check(node, fields, ("name", "keys", "dest_dir"))
    keys = fields["keys"].texts() if "keys" in fields else []
    if not keys:
        raise node.error("restore_cache needs keys")
    return RestoreCacheStep(name=_name(fields, "restore cache"), keys=keys, dest_dir=_text(fields, "dest_dir"))


_PARSERS: dict[str, Callable[[Node, Fields], StepDefinition]] = {
    "clone": _clone,
    "run": _run,
    "save_to_workspace": _save_to_workspace,
    "restore_workspace": _restore_workspace,
    "save_cache": _save_cache,
    "restore_cache": _restore_cache,
}


def _check(node: Node, fields: Fields, known: tuple[str, ...]) -> None:
    Node(fields, node.line, node.place, node.source).mapping(known)


def _text(fields: Fields, key: str) -> str:
    return fields[key].text() if key in fields and fields[key].value is not None else ""


def _name(fields: Fields, default: str) -> str:
    return parse_name(fields["name"]) if "name" in fields else default


def _contents(fields: Fields) -> list[ArchiveContents]:
    if "contents" not in fields:
        return []
    contents = []
    for item in fields["contents"].items():
        found = item.mapping(("source_dir", "dest_dir", "paths"))
        paths = found["paths"].texts() if "paths" in found else []
        contents.append(
            ArchiveContents(source_dir=_text(found, "source_dir"), dest_dir=_text(found, "dest_dir"), paths=paths)
        )
    return contents
