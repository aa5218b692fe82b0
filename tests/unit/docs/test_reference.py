"""The reference has every public name, each with a docstring."""

import importlib
import importlib.util
import inspect
import re

import pytest

from tests.support.pages import DOCS

PACKAGES = [
    "agola_core",
    "agola_core.aio",
    "agola_core.coordinator",
    "agola_core.datamanager",
    "agola_core.db",
    "agola_core.executor",
    "agola_core.maintenance",
    "agola_core.objectstorage",
    "agola_core.readdb",
    "agola_core.runconfig",
    "agola_core.runservice.service",
    "agola_core.runservice.model.options",
    "agola_core.runservice.model.protocol",
    "agola_core.runservice.model.requests",
    "agola_core.runservice.model.types",
    "agola_core.standalone",
    "agola_eventsourcing",
    "agola_http.client",
]


def load_names():
    spec = importlib.util.spec_from_file_location("documentation_names", DOCS / "_ext/names.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


names = load_names()
WRITTEN = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
LISTED = dict(re.findall(r"^\.\. public-names:: (\S+)(?:\n   :but: (.*))?$", WRITTEN, re.MULTILINE))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_of_a_package_is_in_the_reference(package):
    assert package in LISTED
    assert names.public_names(package)
    for name in names.public_names(package):
        (directive, *_) = names.directive_of(package, name)
        assert directive.endswith(f":: {package}.{name}")
        item = getattr(importlib.import_module(package), name)
        assert not (inspect.isclass(item) or inspect.isroutine(item)) or inspect.getdoc(item), name


def test_every_package_that_hands_out_names_is_in_the_reference():
    root = DOCS.parent / "agola_core"
    for package in [root, *(path for path in root.iterdir() if (path / "__init__.py").exists())]:
        module = ".".join(package.relative_to(root.parent).parts)
        if "__all__" in (package / "__init__.py").read_text():
            assert module in LISTED


def test_a_name_that_another_page_has_is_left_out_by_that_page_s_name_alone():
    for others in LISTED.values():
        assert set(others.split()) <= set(LISTED)


def test_every_fixture_is_in_the_reference():
    plugin = importlib.import_module("agola_pytest.plugin")
    assert {fixture.name for fixture in names.fixtures()} == set(plugin.__all__)
    assert all(fixture.text for fixture in names.fixtures())
    assert ".. fixtures::" in WRITTEN
