"""The glossary points at files and names that exist."""

import re

import pytest

from tests.support.pages import DOCS, ROOT

ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| `([^`]+)`(?: `([^`]+)`)? \|$", re.MULTILINE)
TERMS = ROW.findall((DOCS / "glossary.md").read_text())


def defines(path, symbol):
    return re.search(rf"^(class|def) {symbol}\b|^{symbol}\b.* = ", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("term", "meaning", "path", "symbol"), TERMS, ids=[term[0] for term in TERMS])
def test_a_term_lives_where_the_glossary_says(term, meaning, path, symbol):
    assert (ROOT / path).is_file(), path
    assert not symbol or defines(ROOT / path, symbol), f"{path} defines no {symbol}"
    assert meaning.endswith(".")


def test_every_row_is_a_term():
    rows = [line for line in (DOCS / "glossary.md").read_text().splitlines() if line.startswith("| ")]
    headings = [line for line in rows if line == "| term | meaning | where |"]
    assert len(TERMS) == len(rows) - len(headings)


def test_no_term_means_two_things_in_one_section():
    for section in (DOCS / "glossary.md").read_text().split("\n## ")[1:]:
        terms = [row[0] for row in ROW.findall(section)]
        assert len(terms) == len(set(terms))
