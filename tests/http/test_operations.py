"""What operators and tools ask."""

import json
import logging
import logging.handlers
import queue

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families

from agola_core.errors import UnavailableError

API = "/api/v1alpha"


def test_the_openapi_document_is_valid_and_names_every_route(server):
    document = server.request("GET", "/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    named = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert named == {(row.method, row.path) for row in server.app.endpoints if row.documented}
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))
    create = document["paths"][f"{API}/runs"]["post"]
    assert create["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/RunCreateRequest")
    assert "changeup_update_tokens" in document["components"]["schemas"]["RunCreateRequest"]["properties"]


def test_health_readiness_and_version(start_server):
    with start_server() as server:
        assert server.request("GET", "/healthz").json() == {"status": "ok"}
        assert server.request("GET", "/readyz").json() == {"status": "ready"}
        assert server.request("GET", "/version").json()["name"] == "agola-core"
        server.app.state.backend.gate.close(0)
        answer = server.request("GET", "/readyz")
        assert (answer.status, isinstance(answer.message, str)) == (503, True)
        assert server.request("GET", "/healthz").status == 200
        for path in ("/runs", "/executor/e/tasks/t", "/unknown", "/events"):
            answer = server.request("GET", API + path)  # never 404, by which executors delete data
            assert (answer.status, answer.message, "retry-after" in answer.headers) == (
                503,
                "in maintenance mode",
                True,
            )
        assert server.request("GET", f"{API}/status").status == 200
        assert server.request("GET", f"{API}/export").status == 200
        assert server.request("GET", "/metrics").status == 200


def test_metrics_tell_of_requests_and_of_the_store(server, create_run):
    create_run()
    server.request("GET", f"{API}/runs/none")
    answer = server.request("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }
    labels = (("method", "GET"), ("route", f"{API}/runs/{{run_id}}"), ("status", "404"))
    assert found["agola_http_requests_total", labels] >= 1
    assert found["agola_store_up", ()] == found["agola_runservice_up", ()] == 1
    assert found["agola_store_uncheckpointed_wals", ()] >= 1
    assert sum(value for (name, _), value in found.items() if name == "agola_runs_active") >= 1


def test_a_store_that_is_away_shows_in_readiness_and_metrics(start_server, monkeypatch):
    def away():
        raise UnavailableError("the coordinator is away")

    with start_server() as server:
        monkeypatch.setattr(server.datamanager, "status", away)
        answer = server.request("GET", "/readyz")
        assert answer.status == 503
        assert b"agola_store_up 0.0" in server.request("GET", "/metrics").body


def test_the_store_the_executors_and_a_run_that_is_deleted(server):
    assert server.request("GET", f"{API}/status").json()["store"]
    server.request("POST", f"{API}/executor/e1", {"id": "e1", "listenURL": "http://127.0.0.1:1"})
    assert [item["id"] for item in server.request("GET", f"{API}/executors").json()] == ["e1"]
    for path in ("executor", "executors"):
        for _ in range(2):  # also if absent
            answer = server.request("DELETE", f"{API}/{path}/e1")
            assert (answer.status, answer.headers["content-length"]) == (200, "0")
    assert server.request("GET", f"{API}/executors").json() == []
    body = {"name": "r", "group": "/project/d1", "setup_errors": ["wrong"]}
    run_id = server.request("POST", f"{API}/runs", body).json()["run"]["id"]
    answer = server.request("DELETE", f"{API}/runs/{run_id}")
    assert (answer.status, answer.headers["content-length"]) == (200, "0")
    assert server.request("DELETE", f"{API}/runs/{run_id}").status == 404
    assert server.request("GET", f"{API}/runs/{run_id}").status == 404


def test_every_request_is_one_line_of_the_access_log(server):
    lines = queue.Queue()
    handler = logging.handlers.QueueHandler(lines)
    logger = logging.getLogger("agola_http.access")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        server.request("GET", f"{API}/runs/no%0Ane?token=hidden")
        while "no" not in (line := lines.get(timeout=30).getMessage()):
            pass
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert "\n" not in line
    assert "hidden" not in line
    assert "GET" in line
    assert " 404 " in line


@pytest.mark.parametrize("path", ["/status", "/maintenance", "/executors"])
def test_documents_are_json(server, path):
    answer = server.request("GET", API + path)
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body) is not None
