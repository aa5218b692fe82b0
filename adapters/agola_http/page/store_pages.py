"""The page of the store: what an operator asks first, also while one of its parts is away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain, islice

import msgspec
from starlette.responses import Response

from agola_core import maintenance
from agola_core.coordinator.port import Coordinator, iterate
from agola_core.datamanager import Counters, DataManager, Status
from agola_core.errors import MaintenanceError
from agola_core.maintenance import MaintenanceStatus
from agola_core.runservice.archive.store_history import StoreSample
from agola_core.runservice.archive.stored_notes import Notes
from agola_core.runservice.model.types import Executor
from agola_http.page.area import AWAY, PART, PageArea, for_people, shows, tell_away
from agola_http.page.plots import plots
from agola_http.page.render import part
from agola_http.page.views import ago
from agola_http.server.endpoints import Call
from agola_http.server.state import State

_LOCKS, _MAX_LOCKS = ("dm/locks/", "rs/locks/"), 50
_NOTES_SECONDS = 5.0


class _Seen(msgspec.Struct, frozen=True):
    """What the coordinator told, and when."""

    time: datetime
    status: Status
    counters: Counters
    mode: MaintenanceStatus
    locks: tuple[tuple[str, str], ...]
    executors: list[Executor]


class StorePages(PageArea):
    """The handler of the store's page.

    Args:
        state: What it works on.
    """

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._lock = threading.Lock()
        self._seen: _Seen | None = None
        self._away = False

    @shows("/page/store", PART)
    @for_people
    def store(self, call: Call) -> Response:
        """Show the store; it is shown in maintenance mode, too, and while its parts are away."""
        recent: list[StoreSample] = []
        in_maintenance = False
        try:
            with self._state.backend.gate.enter() as service:
                away = self._look(service.executors)
                service.recent.take()
                recent = service.recent.all()
        except MaintenanceError:
            away, in_maintenance = self._look(list), True
        is_part = call.flag("part")
        values: dict[str, object] = {
            "seen": self._seen,
            "away": away,
            "facts": _facts(self._seen) if self._seen else (),
            "plots": plots(recent) if recent else [],
            "maintenance": in_maintenance,
            **_noted(self._state.notes.read(_NOTES_SECONDS if is_part else 0.0), datetime.now(UTC)),
        }
        if is_part:
            return part(call, "store_detail.html", values)
        return self._page(call, "store.html", "store", **values)

    def _look(self, executors: Callable[[], list[Executor]]) -> bool:
        """Ask the coordinator; return whether it is away: then what it told before is shown."""
        try:
            seen = _look(self._state.datamanager, executors)
        except AWAY as error:
            with self._lock:
                told, self._away = self._away, True
            if not told:  # once, as pages ask every second
                tell_away("what the coordinator knows of the store", error)
            return True
        with self._lock:
            self._seen, self._away = seen, False
        return False


def _look(datamanager: DataManager, executors: Callable[[], list[Executor]]) -> _Seen:
    coordinator = datamanager.coordinator
    return _Seen(
        datetime.now(UTC),
        datamanager.status(),
        datamanager.counters(),
        maintenance.status(coordinator),
        _locks(coordinator),
        executors(),
    )


def _facts(seen: _Seen) -> tuple[tuple[str, str], ...]:
    status = seen.status
    return (
        ("Store", status.store),
        ("Lineage", f"{status.lineage} (epoch {status.epoch})"),
        ("Newest WAL", status.sequence),
        ("In storage up to", status.synced),
        ("WALs not in storage", f"{seen.counters.unsynced:,}"),
        ("Checkpointed up to", status.checkpointed),
        ("WALs not checkpointed", f"{status.uncheckpointed_wals:,}, {status.uncheckpointed_bytes:,} bytes"),
        ("Last checkpoint", f"number {status.manifest}"),
        ("Data files", f"{status.data_files:,}, {status.data_bytes:,} bytes"),
    )


def _noted(notes: Notes, now: datetime) -> dict[str, object]:
    return {
        "notes": notes,
        "days": [plot for plot in plots(list(notes.history.samples)) if plot.points],
        "exported_ago": ago(notes.exported.time, now) if notes.exported else "",
        "verified_ago": ago(notes.verified.time, now) if notes.verified else "",
    }


def _locks(coordinator: Coordinator) -> tuple[tuple[str, str], ...]:
    """Return the locks that are held, each with who holds it."""
    held = chain.from_iterable(iterate(coordinator, prefix) for prefix in _LOCKS)
    return tuple((item.key, item.value.decode(errors="replace")) for item in islice(held, _MAX_LOCKS))
