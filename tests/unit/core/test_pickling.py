"""Every error and every value of the packages survives pickling and copying: they go to and from process pools."""

import collections.abc
import copy
import enum
import importlib.util
import pickle
import pkgutil
import types
import typing
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import msgspec
import pytest

import agola_cli
import agola_core
import agola_http
import agola_pytest
from agola_core import CompactedError, ConfigError, CorruptionError

_SIMPLE = {
    str: "x",
    bytes: b"x",
    int: 1,
    float: 1.5,
    bool: True,
    datetime: datetime(2026, 1, 2, tzinfo=UTC),
    timedelta: timedelta(seconds=1),
    Path: Path("x"),
    typing.Any: "x",
    object: "x",
}
_VALUES = (
    "coordinator.port",
    "datamanager.format.records",
    "datamanager.types",
    "objectstorage.port",
    "runconfig.model",
    "runservice.model.types",
)
"""Modules of values, besides those that the packages hand out."""


def modules():
    for package in (agola_core, agola_http, agola_cli, agola_pytest):
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def classes(base, found):
    """Return the packages' own public classes of a kind in some modules."""
    kinds = {
        value
        for module in found
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value.__module__[:6] == "agola_" and name[0] != "_"
    }
    return sorted(kinds, key=lambda kind: (kind.__module__, kind.__qualname__))


def values():
    names = {f"agola_core.{name}" for name in _VALUES}
    assert all(importlib.util.find_spec(name) for name in names), "a module of values has moved"
    found = [module for module in modules() if hasattr(module, "__path__") or module.__name__ in names]
    return [*classes(msgspec.Struct, found), *classes(tuple, found)]


def sample(hint):
    """Return some value of a type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if origin is typing.Annotated:
        return sample(inner[0])
    if origin in {typing.Union, types.UnionType}:
        return sample(next(part for part in inner if part is not type(None)))
    if origin is typing.Literal:
        return inner[0]
    if origin is tuple:
        return tuple(sample(part) for part in inner if part is not ...)
    if origin in {list, collections.abc.Sequence, collections.abc.Iterable}:
        return [sample(inner[0])]
    if origin in {dict, collections.abc.Mapping}:
        return {sample(inner[0]): sample(inner[1])}
    if issubclass(hint, enum.Enum):
        return next(iter(hint))
    return build(hint)


def build(kind):
    """Return a value of a class with the fields that have no default."""
    hints = typing.get_type_hints(kind)
    if issubclass(kind, msgspec.Struct):
        needed = [field.name for field in msgspec.structs.fields(kind) if field.required]
    else:
        needed = [name for name in kind._fields if name not in kind._field_defaults]
    return kind(**{name: sample(hints[name]) for name in needed})


def copies(value):
    yield copy.copy(value)
    yield copy.deepcopy(value)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(value, protocol))


def raised(kind):
    """Return an error as it is raised, with all that its constructor takes."""
    hints = typing.get_type_hints(kind.__init__) if kind.__init__ is not Exception.__init__ else {}
    hints.pop("return", None)
    error = kind(**{name: sample(hint) for name, hint in hints.items()}) if hints else kind("what went wrong")
    error.add_note("while it was tried")
    return error


@pytest.mark.parametrize("kind", classes(Exception, modules()), ids=lambda kind: kind.__name__)
def test_errors(kind):
    error = raised(kind)
    for found in copies(error):
        assert type(found) is kind
        assert str(found) == str(error)
        assert found.args == error.args
        assert vars(found) == vars(error)


def test_the_errors_with_attributes_of_their_own():
    found = pickle.loads(pickle.dumps(CorruptionError("a bad checksum", path="dm/x", offset=7)))
    assert (found.message, found.path, found.offset) == ("a bad checksum", "dm/x", 7)
    assert pickle.loads(pickle.dumps(CompactedError("too old", oldest="3"))).oldest == "3"
    error = ConfigError("is missing", source="config.yml", line=3, place="runs[0]")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "config.yml:3: runs[0]: is missing"


def _damaged():
    raise CorruptionError("a bad checksum", path="dm/x", offset=7)


def test_an_error_leaves_a_process_pool():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.raises(CorruptionError, match="dm/x at offset 7: a bad checksum"):
            pool.submit(_damaged).result()
        assert pool.submit(len, "abc").result() == 3  # the pool goes on


@pytest.mark.parametrize("kind", values(), ids=lambda kind: kind.__name__)
def test_values(kind):
    value = build(kind)
    for found in copies(value):
        assert type(found) is kind
        assert found == value


def test_the_public_names_are_errors_values_and_stores():
    public = {name: getattr(agola_core, name) for name in agola_core.__all__}
    rest = {
        name
        for name, value in public.items()
        if isinstance(value, type) and not issubclass(value, (Exception, msgspec.Struct, tuple, enum.Enum))
    }
    assert rest == {"DataManager", "PastStore"}
