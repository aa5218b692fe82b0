"""Badges, and the page's files."""

from __future__ import annotations

from starlette.responses import Response

from agola_core.runservice.model.requests import RunQuery
from agola_http.page.area import GROUP, PageArea, for_people, shows
from agola_http.page.badge import badge
from agola_http.page.render import packed, static_file
from agola_http.page.views import state_of
from agola_http.server.endpoints import Call


class Pages(PageArea):
    """Handlers of what is no page for itself."""

    @shows("/page/static/{name}", media="application/octet-stream")
    def static(self, call: Call) -> Response:
        """Return a file of the page."""
        return packed(call, static_file(call.path_params["name"]))

    @shows("/badge.svg", GROUP, media="image/svg+xml")
    @for_people
    def badge(self, call: Call) -> Response:
        """Return a badge of a group's newest run."""
        group = call.text("group")
        with self._state.backend.gate.enter() as service:
            found = service.list_runs(RunQuery(groups=(group,) if group else (), limit=1))
        state = state_of(found[0]) if found else "no runs"
        headers = {"Content-Type": "image/svg+xml", "Cache-Control": "no-cache"}
        return Response(badge(found[0].name if found else "agola", state).encode(), 200, headers)
