"""Shared parts of the page's handlers: their rows in the route table, and sign-in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any, TypeVar

from starlette.responses import Response

from agola_core.errors import AgolaError, NotFoundError, RecoveryError, UnauthorizedError, UnavailableError
from agola_core.runservice.model.requests import RunBundle
from agola_http.access import sessions
from agola_http.access.principals import Principal
from agola_http.page.render import HTML, packed, page, redirect
from agola_http.page.views import TaskView, view_tasks
from agola_http.protocol.names import FORM
from agola_http.server.endpoints import Area, Call, Param, ParamKind, endpoint
from agola_http.server.state import State

logger = logging.getLogger(__name__)

AWAY = (UnavailableError, RecoveryError)
"""What backends raise that cannot be read now; a page that needs one for a part of it shows the rest."""
RUN = "/page/runs/{run_id}"
TASK = f"{RUN}/tasks/{{task_id}}"
PART = Param("part", ParamKind.FLAG, "Only the part that changes.")
GROUP = Param("group", ParamKind.TEXT, "Only runs of this group and those below it.")

A = TypeVar("A", bound="PageArea")
H = TypeVar("H", bound=Callable[[Any, Call], Response])


class PageArea(Area[State]):
    """An area of the page."""

    tag = "page"

    def admit(self, call: Call) -> None:
        """Accept a caller that may do what clients may.

        Raises:
            UnauthorizedError: A token is needed.
            ForbiddenError: The request comes from a page of another site.
        """
        self._state.access.admit(Principal.CLIENT, call.headers)

    def _page(self, call: Call, template: str, area: str, **values: object) -> Response:
        shown = {"area": area, "signed_in": bool(sessions.sent(call.headers)), **values}
        return packed(call, page(template, shown))

    def _task(self, call: Call) -> tuple[RunBundle, TaskView]:
        """Return the run and the task that a path names."""
        with self._state.backend.gate.enter() as service:
            bundle = service.get_run(call.path_params["run_id"])
        for task in view_tasks(bundle, datetime.now(UTC)):
            if task.id == call.path_params["task_id"]:
                return bundle, task
        raise NotFoundError(f"run {bundle.run.id} has no task {call.path_params['task_id'][:80]!r}")


def tell_away(what: str, error: AgolaError) -> None:
    """Log why a page does without a part; on the page stands only that it is so, as addresses are nobody's business."""
    logger.warning("%s is not shown: %s", what, error)


def shows(
    path: str, *params: Param, media: str = HTML, waits: bool = False, in_maintenance: bool = True
) -> Callable[[H], H]:
    """Mark a method as what shows a path to people."""
    return endpoint(
        "GET",
        path,
        Principal.PUBLIC,
        params=params,
        media_type=media,
        waits=waits,
        in_maintenance=in_maintenance,
        documented=False,
    )


def takes_form(path: str) -> Callable[[H], H]:
    """Mark a method as what takes a form of the page."""
    return endpoint("POST", path, Principal.PUBLIC, upload=FORM, status=303, in_maintenance=True, documented=False)


def for_people(handler: Callable[[A, Call], Response]) -> Callable[[A, Call], Response]:
    """Make a handler ask for a token where clients need one."""

    @wraps(handler)
    def guarded(self: A, call: Call) -> Response:
        try:
            self.admit(call)
        except UnauthorizedError:
            return redirect("/page/login")
        return handler(self, call)

    return guarded
