"""The documents' examples run, and their links lead somewhere.

A Python block runs, after the blocks before it in its document, unless it is marked `python no-test`. Commands in
documents and in the commands' own help are at least understood: their names and options exist.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from agola_cli.config.settings import leaf_commands
from agola_cli.main import cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = sorted(path for path in DOCS.rglob("*.md") if "examples" not in path.parts and "_build" not in path.parts)
PAGES = [*DOCUMENTS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
SERVICE = "http://127.0.0.1:4000"


def name(path):
    return str(path.relative_to(ROOT))


def blocks(document, language):
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def run_blocks(document, names, replace=("", "")):
    for block in blocks(document, "python"):
        exec(compile(block.replace(*replace), name(document), "exec"), names)


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if blocks(path, "python")], ids=name)
def test_the_programs_of_a_document_run(document, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    replace = ("", "")
    if any(SERVICE in block for block in blocks(document, "python")):
        replace = (SERVICE, request.getfixturevalue("agola_runservice").url)
    run_blocks(document, {"__name__": document.stem}, replace)


def test_the_projection_of_the_readdb_s_document_finds_the_longest(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_blocks(DOCS / "readdb.md", {"__name__": "readdb"})
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


def commands(text):
    """Yield the command lines of agola-core in a text, without what the shell does around them."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(r"^[^#\n]*?(?:^|[\s/`])agola-core ([^`\n]*)", joined, re.MULTILINE):
        words = shlex.split(re.split(r"\s{3,}|\s[>|&;]|\s#", line)[0])
        if words and not words[0].startswith("["):
            yield words


def understand(words):
    """Raise unless a command line names a command, and options and arguments that it has."""
    command, context = cli, click.Context(cli)
    while isinstance(command, click.Group):
        _, words, _ = command.make_parser(context).parse_args(list(words))
        if not words:
            return
        found = command.get_command(context, words[0])
        assert found is not None, f"no command {words[0]}"
        command, words = found, words[1:]
        context = click.Context(command, parent=context)
    _, rest, _ = command.make_parser(context).parse_args(list(words))
    assert not rest, f"{command.name} takes no {rest}"


@pytest.mark.parametrize("document", PAGES, ids=name)
def test_the_commands_of_a_document_exist(document):
    for language, block in re.findall(r"^```([^\n]*)\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE):
        if language in {"", "sh", "sh no-test", "ini"}:
            for words in commands(block):
                understand(words)


def test_commands_that_do_not_exist_are_found():
    assert list(commands("agola-core runs list \\\n    --limit 1   # the last\nPATH=x agola-core status > f")) == [
        ["runs", "list", "--limit", "1"],
        ["status"],
    ]
    for wrong in (["exprot"], ["export", "--nope"], ["runs", "show", "one", "two"]):
        with pytest.raises((AssertionError, click.UsageError)):
            understand(wrong)


@pytest.mark.parametrize("command", list(leaf_commands(cli)), ids=lambda item: item[0])
def test_the_help_of_a_command_teaches_by_an_example(command):
    place, found = command
    examples = [words for words in commands(found.help) if words[: len(place.split())] == place.split()]
    assert examples
    for words in examples:
        understand(words)


@pytest.mark.parametrize("command", list(leaf_commands(cli)), ids=lambda item: item[0])
def test_every_option_has_its_help(command):
    silent = [item.opts[0] for item in command[1].params if isinstance(item, click.Option) and not item.help]
    assert silent == []


@pytest.mark.parametrize("document", PAGES, ids=name)
def test_links_lead_to_files(document):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_document_has_its_place_in_the_site():
    listed = (DOCS / "index.md").read_text()
    for document in DOCUMENTS:
        place = str(document.relative_to(DOCS).with_suffix(""))
        assert place == "index" or re.search(rf"^{place}$", listed, re.MULTILINE) or place.startswith("decisions/")
