"""What the README shows is so; its blocks are run by `tests/end_to_end/test_pages.py`."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_the_tree_of_the_readme_is_the_tree():
    section = (ROOT / "README.md").read_text().split("## The tree\n")[1]
    (tree,) = re.findall(r"```\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    told, above = set(), ""
    for line in tree.splitlines():
        path = line.split()[0]
        above = path if not line.startswith(" ") else above
        told.add(path if path == above else above + path)
    there = {
        f"{top}/{item.name}/"
        for top in ("agola_core", "adapters")
        for item in (ROOT / top).iterdir()
        if item.is_dir() and not item.name.startswith("_")
    }
    assert there <= told
    assert [path for path in sorted(told) if not (ROOT / path).exists()] == []


def test_the_configuration_of_the_readme_is_right():
    from agola_core.runconfig import parse_config

    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert [task.name for task in parse_config(block.encode(), "README.md").runs[0].tasks] == ["build", "try it"]


@pytest.mark.parametrize(
    "name",
    [
        "agola_core.runtime.context",
        "agola_core.embedded",
        "agola_core.sequence",
        "agola_core.datamanager.sstable.tiers",
        "agola_core.executor.archives.globs",
        "agola_core.executor.cache_keys",
        "agola_core.objectstorage.filesystem.storage",
        "agola_core.objectstorage.posix.flat_names",
    ],
)
def test_the_examples_of_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
