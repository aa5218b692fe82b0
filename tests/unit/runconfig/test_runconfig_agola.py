"""Configurations as Agola 0.2 takes them: accepted and refused alike, and all means the same.

The facts are what its version 0.2.0 itself said (see `tests/support/runconfigs.py`).
"""

import pytest

from agola_core.errors import ConfigError
from agola_core.runconfig.findings import FindingKind
from tests.support.runconfigs import facts_about, named, read, runs_of

FACTS = facts_about("agola-0.2.json") + facts_about("agola-0.2-more.json")
jsonnet = pytest.importorskip("importlib.util").find_spec("_jsonnet")


def test_no_fact_is_missing():
    assert len(FACTS) == 276 + 298
    assert all(fact["difference"] for fact in FACTS if "difference" in fact or "here" in fact)
    assert {fact["agola"] for fact in FACTS} == {"accepts", "refuses", "crashes"}


@pytest.mark.parametrize("fact", FACTS, ids=[fact["name"] for fact in FACTS])
def test_a_document_is_taken_as_agola_takes_it(fact, tmp_path):
    if fact["format"] == "jsonnet" and jsonnet is None:
        pytest.skip("no jsonnet")
    findings = []
    found = read(fact, tmp_path, findings)
    if "difference" in fact and fact["agola"] == "refuses":
        assert not isinstance(found, ConfigError)
        assert FindingKind.REFUSED in {finding.kind for finding in findings}
    elif fact["agola"] == "accepts":
        assert not isinstance(found, ConfigError), str(found)
        assert runs_of(found, fact) == named(fact.get("here", fact["runs"]))
        assert FindingKind.REFUSED not in {finding.kind for finding in findings}
    else:
        assert isinstance(found, ConfigError)
