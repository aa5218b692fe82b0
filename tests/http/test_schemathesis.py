"""Requests made of the OpenAPI document: no answer is one that the document does not name, none a failure of ours."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from agola_http.routes import table
from agola_http.server.state import State

API = "/api/v1alpha"
LEFT_OUT = {f"{API}/events", f"{API}/runs/events", f"{API}/maintenance", f"{API}/import"}  # without end, or the end
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ROWS = [
    (row.method, row.path) for row in table(State(None), bytes, bytes) if row.documented and row.path not in LEFT_OUT
]


@schemathesis.serializer("application/x-tar")
def serialize(context, value):
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture(scope="module")
def document(server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize(("method", "path"), ROWS)
def test_answers_are_those_of_the_document(document, method, path):
    @settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=document[path][method].as_strategy())
    def check(case):
        case.call_and_validate(checks=CHECKS)

    check()
