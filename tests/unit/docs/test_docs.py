"""Commands in documents and in the commands' own help exist, with their options, and links lead somewhere.

What the blocks of the documents do is run by `tests/end_to_end/test_pages.py`.
"""

import re
import shlex

import click
import pytest

from agola_cli.config.settings import leaf_commands
from agola_cli.main import cli
from tests.support.pages import DOCS, ROOT, page_blocks

DOCUMENTS = sorted(path for path in DOCS.rglob("*.md") if "examples" not in path.parts and "_build" not in path.parts)
PAGES = [*DOCUMENTS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def name(path):
    return str(path.relative_to(ROOT))


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
    for block in page_blocks(document):
        if block.language in {"", "sh", "ini"}:
            for words in commands(block.text):
                understand(words)


@pytest.mark.parametrize("document", PAGES, ids=name)
def test_headings_leave_out_no_level(document):
    """Sphinx warns of one that does, and the site is built only without warnings."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    level = 0
    for marks, title in re.findall(r"^(#+) (.*)", text, re.MULTILINE):
        assert len(marks) <= level + 1, title
        level = len(marks)


def test_names_in_docstrings_stand_alone():
    """What follows a name's closing mark at once, as a plural's s, keeps Sphinx from seeing that it closes."""
    for root in ("agola_core", "adapters"):
        for path in (ROOT / root).rglob("*.py"):
            for docstring in re.findall(r'^ *"""(.*?)"""', path.read_text(), re.MULTILINE | re.DOTALL):
                assert not re.search(r"(?<!`)`[\w.]+`[a-z]", docstring), path


@pytest.mark.parametrize("document", PAGES, ids=name)
def test_a_block_with_commands_says_that_it_is_one(document):
    for block in page_blocks(document):
        assert block.language or not list(commands(block.text)), block.text


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


CODE = "\n".join(
    code for page in PAGES for code in re.findall(r"^```[^`]*^```|`[^`\n]+`", page.read_text(), re.MULTILINE)
)


def options(command):
    return [item for item in command.params if isinstance(item, click.Option) and not item.hidden]


def stands_in(text, option):
    return any(re.search(rf"(?<![\w-]){name}(?![\w-])", text) for name in option.opts + option.secondary_opts)


@pytest.mark.parametrize("command", list(leaf_commands(cli)), ids=lambda item: item[0])
def test_every_option_is_shown_on_a_page(command):
    """The reference that is generated from the options is no page: what is written by hand shows each in use."""
    assert [item.opts[0] for item in options(command[1]) if not stands_in(CODE, item)] == []


@pytest.mark.parametrize("command", list(leaf_commands(cli)), ids=lambda item: item[0])
def test_the_help_shows_what_an_option_takes(command):
    """By a value of the option's help, its default, its choices, its form, or the command's example."""

    def is_shown(item):
        help_ = re.search(r"such as |: /=|: posix:|: etcd:", item.help or "") or item.metavar
        return item.is_flag or isinstance(item.type, click.Choice) or item.show_default or help_

    examples = "\n".join(" ".join(words) for words in commands(command[1].help))
    silent = [item.opts[0] for item in options(command[1]) if not is_shown(item) and not stands_in(examples, item)]
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


@pytest.mark.parametrize("document", PAGES, ids=name)
def test_the_files_that_a_document_names_are_there(document):
    named = re.findall(
        r"(?<![\w./-])(?:agola_core|adapters|tests|bench|docs)/[\w/.-]+\.(?:py|md|sh)", document.read_text()
    )
    assert [file for file in named if not (ROOT / file).exists()] == []


def test_decisions_are_numbered_without_gaps():
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for page in pages:
        assert page.read_text().startswith(f"# {int(page.name[:4])}. ")
