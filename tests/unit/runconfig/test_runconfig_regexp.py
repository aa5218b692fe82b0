"""Regular expressions of conditions: Go's syntax, and no expression that takes long."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agola_core.errors import ConfigError
from agola_core.runconfig import parse_config
from agola_core.runconfig.regexp.matching import RegexpError, compile_regexp

HITS = [
    ("ma", "xmaster"),
    ("^ma", "master"),
    ("er$", "master"),
    ("^$", ""),
    ("a|b", "xb"),
    ("^(?:a|bc)+$", "abcbca"),
    ("^[a-c]{2,3}$", "abc"),
    ("^a{0}$", ""),
    (r"^v\d+\.\d+$", "v1.20"),
    (r"^[[:alpha:]_-]+$", "a_b-C"),
    (r"^[^[:digit:]]$", "\n"),
    (r"(?i)^RELEASE\b", "release-1"),
    (r"(?i)K", "\N{KELVIN SIGN}"),
    (r"^\pL\p{Nd}\P{Lu}$", "é1x"),
    (r"(?m)^b$", "a\nb\nc"),
    (r"(?s)a.b", "a\nb"),
    (r"^\Qa.b\E$", "a.b"),
    (r"^\x41\x{1F600}\101$", "A😀A"),
    ("^a{,2}$", "a{,2}"),
    ("^]$", "]"),
    ("^[]a]$", "]"),
    ("^[a-]$", "-"),
    ("^(?P<n>a)*?$", "aa"),
    ("^(|a)+$", "aa"),
]
MISSES = [
    ("^ma$", "main"),
    ("a.b", "a\nb"),
    ("a$", "a\n"),
    (r"^a{2}$", "a"),
    (r"(?i:a)b", "AB"),
    (r"\bmain\b", "maintenance"),
    (r"[^a]", "a"),
    (r"^\w$", "é"),
]
WRONG = [
    "(",
    ")",
    "[",
    "*",
    "a**",
    "a{2}{3}",
    "a{1001}",
    "(a{50}){50}",
    "a{2,1}",
    r"\1",
    r"\Z",
    "(?=a)",
    "[b-a]",
    r"\p{Foo}",
]
WRONG += ["[[:foo:]]", r"\x{110000}", "(?P<a>)(?P<a>)", "\\", r"[\b]", "(?i", "(" * 60 + ")" * 60, "a" * 200_000]


@pytest.mark.parametrize(("expression", "text"), HITS)
def test_what_matches(expression, text):
    assert compile_regexp(expression).matches(text)


@pytest.mark.parametrize(("expression", "text"), MISSES)
def test_what_does_not(expression, text):
    assert not compile_regexp(expression).matches(text)


@pytest.mark.parametrize("expression", WRONG, ids=[text[:20] for text in WRONG])
def test_what_is_none(expression):
    with pytest.raises(RegexpError):
        compile_regexp(expression)


@pytest.mark.parametrize(
    "expression", ["(a*)*b", "(a|a)*b", "((((a*)*)*)*)*b", "(a+a+)+b", ".*.*.*.*=", "(a?){100}a{100}b"]
)
def test_no_expression_takes_long(expression):
    # Backtracking would take longer than the world lasts; here all that is possible is looked at once a character.
    assert not compile_regexp(expression).matches("a" * 300)


@pytest.mark.parametrize("expression", ["(" * 5000, "[" * 5000, "a{1000}" * 5000, "(){1000}" * 1000])
def test_a_condition_that_is_too_large_is_refused(expression):
    text = f"runs: [{{name: r, when: {{branch: '/{expression}/'}}, tasks: [{{name: t}}]}}]"
    with pytest.raises(ConfigError, match="not a regular expression"):
        parse_config(text.encode(), "c")


def test_the_expressions_of_a_file_are_bounded_together():
    patterns = ", ".join(f"'/{number:05}.{{1000}}/'" for number in range(30))
    text = f"runs: [{{name: r, when: {{branch: [{patterns}]}}, tasks: [{{name: t}}]}}]"
    with pytest.raises(ConfigError, match="too large together"):
        parse_config(text.encode(), "c")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "(a|b)", "[ab]", "."]), max_size=5), st.text("abc", max_size=6))
def test_it_agrees_with_the_standard_library(parts, text):
    import re

    for repeat in ("", "*", "+", "?", "{2}", "{0,2}", "{1,}"):
        expression = "".join(f"(?:{part}){repeat}" for part in parts)
        assert compile_regexp(f"^(?:{expression})$").matches(text) == bool(re.fullmatch(expression, text))
