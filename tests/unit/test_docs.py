"""The documents' examples run, and their links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENTS = sorted(path for path in DOCS.rglob("*.md") if "examples" not in path.parts and "_build" not in path.parts)


def blocks(document, language):
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def test_the_tutorial_s_programs_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "tutorial"}
    for block in blocks(DOCS / "tutorial.md", "python"):
        exec(compile(block, "tutorial.md", "exec"), names)


def test_the_projection_of_the_readdb_s_document_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(DOCS / "readdb.md", "python")
    exec(compile(block, "readdb.md", "exec"), {"__name__": "readdb"})
    assert "Note(id='n1', words=3)" in capsys.readouterr().out


def test_the_tutorial_s_commands_run(tmp_path, monkeypatch):
    monkeypatch.setenv("AGOLA_DATA_DIR", str(tmp_path / "data"))
    setup, *commands = blocks(DOCS / "tutorial.md", "sh")
    assert "pip install" in setup  # the tests' own environment has it already
    tool = f'agola-core() {{ "{sys.executable}" -m agola_cli.main "$@"; }}\n'
    script = (
        "set -e\n"
        + tool.replace("agola-core()", "agola_core()")
        + "\n".join(commands).replace("agola-core ", "agola_core ")
    )
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "HELLO" in done.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(DOCS)))
def test_links_lead_to_files(document):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target
