"""The directive `http-routes`: a table of the routes of the HTTP interface, from its OpenAPI document."""

from __future__ import annotations

from typing import Any

from agola_http.openapi import openapi_document
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class HttpRoutes(SphinxDirective):
    """Lists every route: method, path, who may call it, what it does."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows = []
        for path, methods in openapi_document()["paths"].items():
            for method, operation in methods.items():
                rows.append((method.upper(), path, _principals(operation), operation.get("summary", "")))
        return [_table(("method", "path", "who", "what"), rows)]


def _principals(operation: dict[str, Any]) -> str:
    return ", ".join(name for scheme in operation.get("security", []) for name in scheme) or "anybody"


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> nodes.table:
    group = nodes.tgroup(cols=len(headings))
    group += [nodes.colspec(colwidth=width) for width in (8, 40, 12, 40)]
    head, body = nodes.thead(), nodes.tbody()
    head += _row(headings)
    body += [_row(row, literal=(0, 1)) for row in rows]
    group += [head, body]
    table = nodes.table()
    table += group
    return table


def _row(cells: tuple[str, ...], literal: tuple[int, ...] = ()) -> nodes.row:
    row = nodes.row()
    for number, cell in enumerate(cells):
        kind = nodes.literal if number in literal else nodes.inline
        row += nodes.entry("", nodes.paragraph("", "", kind(text=cell)))
    return row


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("http-routes", HttpRoutes)
    return {"parallel_read_safe": True}
