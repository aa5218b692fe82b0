"""Requests made of the OpenAPI document: no answer is one that the document does not name, none a failure of ours."""

import importlib

import pytest
from hypothesis import HealthCheck, given, settings

from agola_http.routes import table
from agola_http.server.state import State

API = "/api/v1alpha"
LEFT_OUT = {f"{API}/events", f"{API}/runs/events", f"{API}/maintenance", f"{API}/import"}  # without end, or the end
ROWS = [
    (row.method, row.path) for row in table(State(None), bytes, bytes) if row.documented and row.path not in LEFT_OUT
]


@pytest.fixture(scope="module")
def schemathesis():
    """Imported by the worker that uses it alone: it takes a second."""
    return importlib.import_module("schemathesis")


@pytest.fixture(scope="module")
def document(server, schemathesis):
    @schemathesis.serializer("application/x-tar")
    def serialize(context, value):
        return value if isinstance(value, bytes) else str(value).encode()

    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.fixture(scope="module")
def checks(schemathesis):
    rules = schemathesis.specs.openapi.checks
    return [
        schemathesis.checks.not_a_server_error,
        rules.status_code_conformance,
        rules.content_type_conformance,
        rules.response_schema_conformance,
    ]


@pytest.mark.parametrize(("method", "path"), ROWS)
def test_answers_are_those_of_the_document(document, checks, method, path):
    @settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=document[path][method].as_strategy())
    def check(case):
        case.call_and_validate(checks=checks)

    check()
