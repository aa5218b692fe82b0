"""Parses values that project variables may provide, names, labels and durations."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from agola_core.runconfig.findings import FindingKind
from agola_core.runconfig.model import Value, Values, Variable
from agola_core.runconfig.yaml.document import Node

MAX_NAME = 100
"""The longest name of a run or task, in bytes."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h)")
_GO_DURATION = re.compile(r"[+-]?(?:0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)
_GO_PART = re.compile(r"([0-9.]+)(ns|us|µs|μs|ms|s|m|h)")
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))([KMGTPE]i|[numkMGTPE]?|[eE][+-]?[0-9]{1,3})", re.ASCII)
_UNITS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_MAX_SECONDS = 1e9
_MAX_ATTEMPTS = 1000


def parse_value(node: Node) -> Value:
    """Parse a text or a reference to a variable."""
    if node.is_mapping:
        found = node.mapping()
        for key, inner in found.items():
            if key != "from_variable":
                inner.note(f"unknown key {key!r} is ignored; known is from_variable")
        if "from_variable" not in found:
            node.note("a mapping without from_variable is an empty string")
            return ""
        return Variable(_written(found["from_variable"], "the name of a variable"))
    return _written(node, "a string or from_variable")


def _written(node: Node, expected: str) -> str:
    if node.is_scalar and not node.is_text:
        node.note("Agola 0.2 refuses a value that is no string: put it in quotes", FindingKind.REFUSED)
        return node.written_text()
    if node.is_null:
        raise node.error(f"expected {expected}, not nothing")
    return node.text()


def parse_environment(node: Node) -> Values:
    """Parse an environment; a name that YAML reads as a boolean or a number is kept as written."""
    found = {}
    for name, value in node.mapping().items():
        written = node.written(name)
        if written != name:
            value.note(f"Agola 0.2 names this variable {name}: put {written} in quotes", FindingKind.DIFFERENT)
        found[written] = parse_value(value)
    return found


def check_name(node: Node, name: str) -> str:
    """Check and return a name of at most 100 bytes."""
    if not name:
        raise node.error("the name is empty")
    if len(name.encode()) > MAX_NAME:
        raise node.error(f"the name is longer than {MAX_NAME} bytes")
    return name


def parse_duration(node: Node) -> float:
    """Parse seconds, or a duration such as `90s`, `10m` or `1h`; an addition to Agola."""
    match = _DURATION.fullmatch(node.text()) if node.is_text else None
    if match is not None:
        seconds = float(match[1]) * _SECONDS[match[2]]
    elif node.is_text or not node.is_number:
        message = f"expected seconds, or a duration like 90s, 10m or 1h, not {node.kind()}"
        raise node.own_error(message, "ignores it")
    else:
        seconds = node.number()
    if not 0 <= seconds < _MAX_SECONDS:
        raise node.own_error("a timeout must not be negative, nor endless", "ignores it")
    return seconds


def parse_attempts(node: Node) -> int:
    """Parse a number of attempts; an addition to Agola."""
    if not node.is_number or not 0 <= node.number() <= _MAX_ATTEMPTS:
        raise node.own_error(f"expected a number from 0 to {_MAX_ATTEMPTS}, not {node.kind()}", "ignores it")
    return int(node.number())


def parse_labels(node: Node) -> dict[str, str]:
    """Parse labels; an addition to Agola."""
    if not node.is_mapping or not all(value.is_scalar or value.is_null for value in node.mapping().values()):
        raise node.own_error("expected a mapping of names to strings", "ignores it")
    return {name: value.loose_text() for name, value in node.mapping().items()}


def parse_interval(node: Node) -> float | None:
    """Parse a `task_timeout_interval` to seconds; None, with a warning, if it is invalid.

    Newer Agola reads nanoseconds, or a Go duration such as `1h30m`. Agola 0.2 reads neither.
    """
    seconds = 0.0
    if node.is_text and _GO_DURATION.fullmatch(node.text()):
        text = node.text()
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _GO_PART.findall(text))
        seconds = -seconds if text.startswith("-") else seconds
    elif node.is_number:
        seconds = node.number() * 1e-9
    else:
        node.note(f"{node.kind()} is no duration, and is ignored; write it like 90s, 10m or 1h30m")
        return None
    if not 0 <= seconds < _MAX_SECONDS:
        node.note("a timeout that is negative or endless is ignored")
        return None
    node.note("Agola 0.2 ignores task_timeout_interval, which is of 0.8", FindingKind.EXTENSION)
    return seconds


def parse_quantity(node: Node) -> int | None:
    """Parse a Kubernetes quantity such as `512Mi` to bytes; None, with a warning, if it is invalid."""
    written = node.tree.text if isinstance(node.tree.value, int | float) else node.text()
    match = _QUANTITY.fullmatch(written)
    if match is None or isinstance(node.tree.value, bool):
        node.note(f"{node.kind()} is no size, and is ignored; write it like 512Mi or 1Gi")
        return None
    number, unit = Decimal(match[1]), match[2]
    if unit.endswith("i"):
        number *= 1 << (10 * ("KMGTPE".index(unit[0]) + 1))
    else:
        number = number.scaleb(int(unit[1:]) if unit[:1] in {"e", "E"} and unit[1:] else _UNITS[unit])
    size = math.ceil(number) if abs(number) < 1 << 63 else -1
    if size < 0:
        node.note(f"{written} is no size that a volume may have, and is ignored")
        return None
    return size
