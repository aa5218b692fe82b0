"""Every page of the documentation does what it says: its blocks run, from top to bottom."""

import subprocess

import pytest

from tests.support.pages import DOCS, ROOT, SERVICE, Reader, page_blocks

RUNS = ("python", "sh")
# Pages whose commands need more than a directory; their own tests run them.
ELSEWHERE = {"backup.md": "stores/test_restore.py", "moving-from-agola.md": "services/test_moving.py"}
PAGES = sorted(path for path in DOCS.rglob("*.md") if not {"examples", "_build"} & set(path.parts))


def name(page):
    return str(page.relative_to(ROOT))


def runs(page):
    return any(block.language in RUNS and block.mark != "no-test" for block in page_blocks(page))


@pytest.mark.parametrize("page", [page for page in PAGES if runs(page)], ids=name)
def test_the_blocks_of_a_page_run(page, tmp_path, request):
    replaced = {}
    blocks = page_blocks(page)
    if any(SERVICE in block.text for block in blocks if block.language == "python"):
        replaced[SERVICE] = request.getfixturevalue("agola_runservice").url
    languages = ("python",) if page.name in ELSEWHERE else ("python", "yaml", "sh")
    with Reader(tmp_path, replaced) as reader:
        reader.read(page, languages)


def test_the_blocks_of_the_readme_run(tmp_path, capsys):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "README.md").write_text("agola\n")
    with Reader(tmp_path) as reader:
        said = reader.read(ROOT / "README.md")
    printed = capsys.readouterr().out
    assert "[('n1', b'hello'), ('n2', b'world')]" in printed
    assert "changed by another writer" in printed
    assert "['Opened', 'Deposited']" in printed
    assert printed.endswith("Note(id='n4', size=13)\n")
    assert "1 passed" in said
    assert "agola" in said


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=name)
def test_what_does_not_run_says_why(page):
    for block in page_blocks(page):
        assert block.mark in {"", "service", "no-test"}
        assert block.mark != "no-test" or len(block.why) > 10, block.text


@pytest.mark.parametrize("page", ELSEWHERE, ids=str)
def test_pages_that_run_elsewhere_do(page):
    assert f'run_page("{page}"' in (ROOT / "tests/end_to_end" / ELSEWHERE[page]).read_text()
