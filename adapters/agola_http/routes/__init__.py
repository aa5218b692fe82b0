"""The route table: one module for each area of the interface, with its handlers and their rows."""

from __future__ import annotations

from collections.abc import Callable

from agola_http.page.forms import Forms
from agola_http.page.lists.list_pages import ListPages
from agola_http.page.log.log_pages import LogPages
from agola_http.page.pages import Pages
from agola_http.page.run.run_pages import RunPages
from agola_http.page.store_pages import StorePages
from agola_http.routes.caches import Caches
from agola_http.routes.events import Events
from agola_http.routes.executors import Executors
from agola_http.routes.logs import Logs
from agola_http.routes.maintenance import Maintenance
from agola_http.routes.operations import Operations
from agola_http.routes.runs import Runs
from agola_http.routes.store import Store
from agola_http.server.endpoints import Endpoint
from agola_http.server.state import State


def table(state: State, metrics: Callable[[], bytes], document: Callable[[], bytes]) -> list[Endpoint]:
    """Return the whole route table; the first row that matches a request wins.

    Args:
        state: The state that all handlers share.
        metrics: Returns the metrics in Prometheus' text format.
        document: Returns the OpenAPI document of the table.
    """
    areas = (
        Executors(state),
        Caches(state),
        Logs(state),
        Events(state),
        Runs(state),
        Maintenance(state),
        Store(state),
        Operations(state, metrics, document),
        ListPages(state),
        Pages(state),
        StorePages(state),
        RunPages(state),
        LogPages(state),
        Forms(state),
    )
    return [endpoint for area in areas for endpoint in area.endpoints()]
