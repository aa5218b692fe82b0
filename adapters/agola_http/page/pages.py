"""The page of the store, badges, and the page's files."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import chain, islice

from starlette.responses import Response

from agola_core import maintenance as maintenance_mode
from agola_core.coordinator.port import Coordinator, iterate
from agola_core.errors import MaintenanceError
from agola_core.runservice.archive.store_history import read_export, read_history
from agola_core.runservice.model.requests import RunQuery
from agola_http.page.area import GROUP, PART, PageArea, for_people, shows
from agola_http.page.badge import badge
from agola_http.page.render import packed, part, static_file
from agola_http.page.samples import Samples, plots
from agola_http.page.views import ago, state_of
from agola_http.server.endpoints import Call
from agola_http.server.state import State

_LOCKS, _MAX_LOCKS = ("dm/locks/", "rs/locks/"), 50


class Pages(PageArea):
    """Handlers of pages.

    Args:
        state: What they work on.
    """

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._samples = Samples(time.monotonic)

    @shows("/page/store", PART)
    @for_people
    def store(self, call: Call) -> Response:
        """Show the store; it is shown in maintenance mode, too."""
        status = self._state.datamanager.status()
        try:
            with self._state.backend.gate.enter() as service:
                executors, maintenance = service.executor_side.executors(), False
        except MaintenanceError:
            executors, maintenance = [], True
        facts = (
            ("Store", status.store),
            ("Lineage", f"{status.lineage} (epoch {status.epoch})"),
            ("Newest WAL", status.sequence),
            ("In storage up to", status.synced),
            ("Checkpointed up to", status.checkpointed),
            ("WALs not checkpointed", f"{status.uncheckpointed_wals:,}, {status.uncheckpointed_bytes:,} bytes"),
            ("Last checkpoint", f"number {status.manifest}"),
            ("Data files", f"{status.data_files:,}, {status.data_bytes:,} bytes"),
        )
        mode = maintenance_mode.status(self._state.datamanager.coordinator)
        values: dict[str, object] = {
            "plots": plots(self._samples.add(status)),
            "members": mode.instances,
            "since": mode.since,
            "locks": _locks(self._state.datamanager.coordinator),
            "facts": facts,
            "instances": status.instances,
            "executors": executors,
            "maintenance": maintenance,
        }
        if call.flag("part"):
            return part(call, "store_detail.html", values)
        return self._page(call, "store.html", "store", **values, **self._past())

    def _past(self) -> dict[str, object]:
        """Return what is shown of the days before; it is read from storage, so not with every look at what is live."""
        storage, now = self._state.datamanager.storage, datetime.now(UTC)
        exported = read_export(storage)
        return {
            "days": [plot for plot in plots(list(read_history(storage).samples)) if plot.points],
            "exported": exported,
            "exported_ago": ago(exported.time, now) if exported else "",
        }

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


def _locks(coordinator: Coordinator) -> list[tuple[str, str]]:
    """Return the locks that are held, each with who holds it."""
    held = chain.from_iterable(iterate(coordinator, prefix) for prefix in _LOCKS)
    return [(item.key, item.value.decode(errors="replace")) for item in islice(held, _MAX_LOCKS)]
