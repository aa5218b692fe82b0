"""Generates the OpenAPI document from the route table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from agola_core.__about__ import __version__
from agola_http.access.principals import Principal
from agola_http.protocol.errors import ErrorDocument
from agola_http.protocol.names import JSON
from agola_http.server.endpoints import Endpoint, Param, ParamKind

_ERRORS = {
    304: "It exists already.",
    400: "The request is wrong.",
    401: "A token is needed.",
    403: "The token does not allow this.",
    404: "What was named does not exist.",
    408: "The body took too long.",
    409: "Somebody else changed it first, or it is in use.",
    413: "The body is too large.",
    500: "The service failed; the header Agola-Error-Id finds the cause in its log.",
    503: "The service is in maintenance mode, has too much to do, or a backend of it is away.",
}
_SECURITY = {Principal.CLIENT: "client", Principal.EXECUTOR: "executor", Principal.ADMIN: "admin"}
_INTEGER = {"type": "integer"}
_TEXT = {"type": "string"}


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the document.

    Args:
        endpoints: The route table.
    """
    endpoints = [endpoint for endpoint in endpoints if endpoint.documented]
    types: dict[Any, None] = {ErrorDocument: None}  # in order, each once
    for endpoint in endpoints:
        types.update({kind: None for kind in (endpoint.body, endpoint.answer) if kind is not None})
    schemas, components = msgspec.json.schema_components(list(types), ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "agola_core run service",
            "version": __version__,
            "description": "The interface of Agola 0.2's run service, and additions.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(endpoint.tag for endpoint in endpoints)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                name: {"type": "http", "scheme": "bearer", "description": f"A token of kind {name}."}
                for name in _SECURITY.values()
            },
        },
    }


def _operation(endpoint: Endpoint, schema_of: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__.rstrip("_") + ("_head" if endpoint.method == "HEAD" else ""),
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "security": _security(endpoint.principal),
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": _TEXT} for name in _variables(endpoint.path)),
            *(_parameter(param) for param in endpoint.params),
        ],
        "responses": _responses(endpoint, schema_of),
    }
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema_of[endpoint.body]}}}
    elif endpoint.upload is not None:
        operation["requestBody"] = {"required": True, "content": {endpoint.upload: {}}}
    return operation


def _responses(endpoint: Endpoint, schema_of: dict[Any, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done."}
    if endpoint.answer is not None:
        success["content"] = {JSON: {"schema": schema_of[endpoint.answer]}}
    elif endpoint.media_type is not None:
        success["content"] = {endpoint.media_type.partition(";")[0]: {}}
    responses = {str(endpoint.status): success}
    for status in sorted({400, 500, *_usual(endpoint), *endpoint.errors}):
        responses[str(status)] = {"description": _ERRORS[status]}
        if status != 304 and endpoint.method != "HEAD":
            responses[str(status)]["content"] = {JSON: {"schema": schema_of[ErrorDocument]}}
    return responses


def _usual(endpoint: Endpoint) -> set[int]:
    statuses = {503}
    if endpoint.principal is not Principal.PUBLIC:
        statuses |= {401, 403}
    if endpoint.body is not None or endpoint.upload is not None:
        statuses |= {408, 413}
    return statuses


def _security(principal: Principal) -> list[dict[str, list[str]]]:
    if principal is Principal.PUBLIC:
        return []
    names = ["client", "admin"] if principal is Principal.CLIENT else [_SECURITY[principal]]
    nothing: list[str] = []
    return [*({name: nothing} for name in names), {}]  # without tokens of a kind, its endpoints are open


def _parameter(param: Param) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": param.name,
        "in": "query",
        "description": param.summary,
        "required": param.required,
        "schema": _TEXT,
    }
    if param.kind is ParamKind.INTEGER:
        described["schema"] = _INTEGER
    elif param.kind is ParamKind.REPEATED:
        described["schema"] = {"type": "array", "items": _TEXT}
    elif param.kind is ParamKind.FLAG:
        described["allowEmptyValue"] = True
        described["description"] += " Its presence counts, whatever its value."
    return described


def _variables(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)
