"""The README's examples run."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_library_examples_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    output = capsys.readouterr().out
    assert "[('n1', b'hello'), ('n2', b'world')]" in output
    assert "changed by another writer" in output
    assert output.endswith("b'hello!'\n")


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
        "agola_core.objectstorage.filesystem",
        "agola_core.objectstorage.posix.flat_names",
    ],
)
def test_the_examples_of_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
