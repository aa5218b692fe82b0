"""Parses the steps of a task, in their short and long forms."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from agola_core.runconfig.findings import FindingKind
from agola_core.runconfig.model import CloneStep, CommandStep, StepDefinition
from agola_core.runconfig.values import MAX_NAME, parse_duration, parse_environment
from agola_core.runconfig.when import parse_when
from agola_core.runconfig.yaml.document import Fields, Known, Node
from agola_core.runconfig.yaml.scalars import lossy
from agola_core.runservice.model.types import (
    ArchiveContents,
    RestoreCacheStep,
    RestoreWorkspaceStep,
    SaveCacheStep,
    SaveToWorkspaceStep,
)

_BASE: Known = {"type": "", "name": "", "when": ""}
_CLONE: Known = {
    **_BASE,
    "depth": "depth is ignored: the whole history of the commit is fetched, or the packed tree is unpacked",
    "recurse_submodules": "recurse_submodules is ignored: submodules are not fetched, as in Agola 0.2",
}
_RUN: Known = {
    **_BASE,
    **dict.fromkeys(("command", "environment", "working_dir", "shell", "user", "timeout"), ""),
    "tty": "tty is ignored: commands run without a terminal",
}
_SAVE_TO_WORKSPACE: Known = {**_BASE, "contents": "", "always": ""}
_RESTORE_WORKSPACE: Known = {**_BASE, "dest_dir": ""}
_SAVE_CACHE: Known = {**_BASE, "key": "", "contents": ""}
_RESTORE_CACHE: Known = {**_BASE, "keys": "", "dest_dir": ""}
_CONTENTS: Known = {"source_dir": "", "dest_dir": "", "paths": ""}


def parse_step(node: Node) -> StepDefinition:
    """Return a step from its short form (one key, the type), or its long form (a key `type`)."""
    if node.is_text:
        node.note("Agola 0.2 refuses a step that is a string: put a colon behind it", FindingKind.REFUSED)
        return _parser(node, node.text())(node.blank())
    found = node.mapping()
    if not found:
        raise node.error(f"a step has one key, its type, or a key 'type'; {_CRASHES}")
    if "type" in found:
        kind = found["type"]
        return _parser(kind, kind.text())(node)
    if len(found) != 1:
        raise node.error(f"a step has one key, its type, or a key 'type'; found {', '.join(found)}")
    ((name, inner),) = found.items()
    parse = _parser(inner, name)
    if name == "run" and inner.is_text:
        return _command(inner, inner, Fields())
    return parse(inner)


_CRASHES = "Agola 0.2 crashes on it"


def _parser(node: Node, kind: str) -> Callable[[Node], StepDefinition]:
    parse = _PARSERS.get(kind)
    if parse is None and kind == "matrix":
        raise node.error("a matrix is the first step of its task, and the only one")
    if parse is None:
        raise node.error(f"unknown step type {kind!r}; known are {', '.join(sorted(_PARSERS))}")
    return parse


def _clone(node: Node) -> StepDefinition:
    fields = _fields(node, _CLONE)
    if _text(fields, "name"):
        fields["name"].note("the name of a clone step is ignored")
    return CloneStep()


def _run(node: Node) -> StepDefinition:
    fields = _fields(node, _RUN)
    if "command" not in fields:
        raise node.error("a run step needs a command")
    return _command(node, fields["command"], fields)


def _command(node: Node, command_node: Node, fields: Fields) -> CommandStep:
    command = command_node.text()
    if not command:
        raise node.error("a run step needs a command")
    timeout = 0.0
    if "timeout" in fields:
        fields["timeout"].note("Agola 0.2 ignores the timeout of a step", FindingKind.EXTENSION)
        timeout = parse_duration(fields["timeout"])
    return CommandStep(
        _text(fields, "name") or _name_of(command, node),
        command,
        fields.parse("environment", parse_environment) or {},
        working_dir=_text(fields, "working_dir"),
        shell=_text(fields, "shell"),
        user=_text(fields, "user"),
        timeout=timeout,
    )


def _name_of(command: str, node: Node) -> str:
    if "\n" in command:
        stripped = command.strip()
        if "\n" in stripped or not stripped:
            raise node.error("a command of several lines needs a name")
        node.note("Agola 0.2 refuses a command with a newline at its end that has no name", FindingKind.REFUSED)
        command = stripped
    return lossy(command.encode()[:MAX_NAME])


def _save_to_workspace(node: Node) -> StepDefinition:
    fields = _fields(node, _SAVE_TO_WORKSPACE)
    if "always" in fields:
        fields["always"].note("Agola 0.2 ignores always: it saves nothing after a failed step", FindingKind.EXTENSION)
    return SaveToWorkspaceStep(
        name=_text(fields, "name") or "save to workspace", contents=_contents(fields), always=fields.flag("always")
    )


def _restore_workspace(node: Node) -> StepDefinition:
    fields = _fields(node, _RESTORE_WORKSPACE)
    return RestoreWorkspaceStep(name=_text(fields, "name") or "restore workspace", dest_dir=_text(fields, "dest_dir"))


def _save_cache(node: Node) -> StepDefinition:
    fields = _fields(node, _SAVE_CACHE)
    key = _text(fields, "key")
    if not key:
        raise node.error("save_cache needs a key")
    contents = [item if item.paths else replace(item, paths=["**"]) for item in _contents(fields)]
    return SaveCacheStep(name=_text(fields, "name") or "save cache", key=key, contents=contents)


def _restore_cache(node: Node) -> StepDefinition:
    fields = _fields(node, _RESTORE_CACHE)
    keys = fields.parse("keys", Node.texts) or []
    if not keys:
        raise node.error("restore_cache needs keys")
    return RestoreCacheStep(
        name=_text(fields, "name") or "restore cache", keys=keys, dest_dir=_text(fields, "dest_dir")
    )


_PARSERS: dict[str, Callable[[Node], StepDefinition]] = {
    "clone": _clone,
    "run": _run,
    "save_to_workspace": _save_to_workspace,
    "restore_workspace": _restore_workspace,
    "save_cache": _save_cache,
    "restore_cache": _restore_cache,
}


def _fields(node: Node, known: Known) -> Fields:
    fields = node.fields(known)
    _text(fields, "type")
    if "when" in fields:
        parse_when(fields["when"])
        fields["when"].note("the condition of a step is ignored: only runs and tasks have one that counts")
    return fields


def _text(fields: Fields, key: str) -> str:
    return fields.parse(key, Node.text) or ""


def _contents(fields: Fields) -> list[ArchiveContents]:
    contents = []
    for item in fields.items_of("contents"):
        if item.is_null:
            raise item.error(f"expected a mapping, not nothing; {_CRASHES}")
        found = item.fields(_CONTENTS)
        paths = found.parse("paths", Node.texts) or []
        contents.append(
            ArchiveContents(source_dir=_text(found, "source_dir"), dest_dir=_text(found, "dest_dir"), paths=paths)
        )
    return contents
