"""The directive `http-routes`: a table of the routes of the HTTP interface, from its route table."""

from __future__ import annotations

from typing import Any, cast

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from agola_http.routes import table
from agola_http.server.state import State


class HttpRoutes(SphinxDirective):
    """Lists every route: method, path, who may call it, what it does."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        endpoints = table(State(cast("Any", None)), bytes, bytes)  # nothing is called, so nothing need stand behind it
        rows = [(item.method, item.path, item.principal.value, item.summary) for item in endpoints]
        return [_table(("method", "path", "who", "what"), rows)]


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
