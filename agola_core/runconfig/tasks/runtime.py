"""Parses the runtime of a task: containers, volumes, and logins for image registries."""

from __future__ import annotations

from agola_core.runconfig.findings import FindingKind
from agola_core.runconfig.model import (
    ContainerDefinition,
    Logins,
    RegistryLogin,
    RuntimeDefinition,
    TemporaryVolume,
    Value,
)
from agola_core.runconfig.values import parse_environment, parse_quantity, parse_value
from agola_core.runconfig.yaml.document import Known, Node

_ARCHS = ("386", "amd64", "arm", "arm64")
_RUNTIME: Known = dict.fromkeys(("type", "arch", "containers"), "")
_CONTAINER: Known = dict.fromkeys(("image", "environment", "user", "privileged", "entrypoint", "volumes"), "")
_VOLUME: Known = dict.fromkeys(("path", "tmpfs"), "")
_LOGIN: Known = dict.fromkeys(("type", "username", "password", "auth"), "")


def parse_runtime(node: Node) -> RuntimeDefinition:
    """Return the runtime of a task."""
    found = node.fields(_RUNTIME)
    kind = found.text("type") or "pod"
    if kind != "pod":
        raise found["type"].error(f"unknown runtime type {kind!r}; known is pod")
    arch = found.text("arch")
    if arch and arch not in _ARCHS:
        raise found["arch"].error(f"unknown arch {arch!r}; known are {', '.join(_ARCHS)}")
    containers = found.items_of("containers")
    if not containers:
        raise node.error("a runtime needs at least one container")
    return RuntimeDefinition(kind, arch, tuple(_container(item) for item in containers))


def parse_logins(node: Node) -> Logins:
    """Return logins by their registries."""
    return {name: _login(item) for name, item in node.mapping().items()}


def _container(node: Node) -> ContainerDefinition:
    if node.is_null:
        raise node.error("a container is empty; Agola 0.2 crashes on it")
    found = node.fields(_CONTAINER)
    return ContainerDefinition(
        found.text("image"),
        found.parse("environment", parse_environment) or {},
        found.text("user"),
        found.flag("privileged"),
        found.text("entrypoint"),
        found.parse("volumes", _volumes) or (),
    )


def _volumes(node: Node) -> tuple[TemporaryVolume, ...]:
    # Agola 0.2 does not know them: what newer ones refuse is ignored with a warning.
    if not node.is_list:
        node.note(f"{node.kind()} is ignored: expected a list of volumes")
        return ()
    volumes = tuple(volume for item in node.items() if (volume := _volume(item)) is not None)
    if volumes:
        node.note("Agola 0.2 ignores volumes, which are of 0.3; so does the host driver here", FindingKind.EXTENSION)
    return volumes


def _volume(node: Node) -> TemporaryVolume | None:
    if not node.is_mapping:
        node.note(f"{node.kind()} is ignored: expected a volume, with path and tmpfs")
        return None
    found = node.fields(_VOLUME)
    path = found.get("path")
    if path is None or not path.is_text or not path.text().startswith("/"):
        (path or node).note("a volume is ignored: it needs a path that begins with /")
        return None
    if "tmpfs" not in found or not found["tmpfs"].is_mapping:
        node.note("a volume is ignored: it is no tmpfs, and there are no others")
        return None
    inner = found["tmpfs"].fields({"size": ""})
    size = inner.get("size")
    if size is None:
        return TemporaryVolume(path.text())
    number = None if size.is_list or size.is_mapping else parse_quantity(size)
    return TemporaryVolume(path.text(), number or 0)


def _login(node: Node) -> RegistryLogin:
    if node.is_null:
        raise node.error("a login is empty; Agola 0.2 crashes on it")
    found = node.fields(_LOGIN, not_null=("username", "password"))
    kind = found.text("type") or "basic"
    if kind not in {"basic", "encodedauth"}:
        found["type"].note(f"unknown type {kind!r} is taken for basic; known are basic, encodedauth")
    if kind == "encodedauth":
        node.note("Agola 0.2 loses the auth of an encodedauth", FindingKind.DIFFERENT)
    values = {key: parse_value(found[key]) for key in ("username", "password") if key in found}
    return RegistryLogin(kind, **values, auth=found.parse("auth", _auth) or "")


def _auth(node: Node) -> Value:
    if not node.is_mapping:
        return node.loose_text()
    node.note("Agola before 0.7 refuses an auth that is no string", FindingKind.REFUSED)
    return parse_value(node)
