"""Queries for runs: active ones from memory or the coordinator, archived ones from the store."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Items

import msgspec

from agola_core.datamanager import ChangeGroupsToken, DataManager
from agola_core.encoding.decoding import decoded
from agola_core.errors import BadRequestError, NotFoundError
from agola_core.readdb import ReadDB
from agola_core.runservice.archive.projection import RUN, RUN_CONFIG, find_ended, find_tasks
from agola_core.runservice.archive.run_search import find_run, find_runs, select, select_ordered
from agola_core.runservice.model.requests import RunBundle, RunQuery
from agola_core.runservice.model.types import Run, RunConfig
from agola_core.runservice.rules.retention import Ended
from agola_core.runservice.state.run_state import RunState
from agola_core.runtime.context import Context

_KEPT_CONFIGS = 1000
_NO_LIMIT = 1 << 62
_READDB_SECONDS = 10.0
_MIRROR_SECONDS = 5.0
_decode_run = msgspec.json.Decoder(Run).decode
_decode_config = msgspec.json.Decoder(RunConfig).decode


class RunQueries:
    """Finds runs.

    Attributes:
        following: Whether mirror and readdb are kept up to date, by a started service.
    """

    def __init__(self, datamanager: DataManager, state: RunState, readdb: ReadDB) -> None:
        self._datamanager = datamanager
        self._state = state
        self._store = state.store
        self._readdb = readdb
        self._configs: dict[str, RunConfig] = {}
        self.following = False

    def get(self, run_id: str) -> RunBundle:
        """Return a run, active or archived, with its configuration.

        Raises:
            NotFoundError: There is no such run.
        """
        run = self.find(run_id)
        if run is None:
            raise NotFoundError(f'run "{run_id}" doesn\'t exist')
        return RunBundle(run, self.config(run_id))

    def find(self, run_id: str) -> Run | None:
        """Return a run, active or archived; None when there is none."""
        stored = self._store.find_run(run_id)
        return stored.run if stored is not None else self.find_archived(run_id)

    def known(self, run_id: str) -> Run | None:
        """Return what memory or the readdb has of a run, and ask nobody else; None for nothing."""
        return self._state.mirror.run(run_id) or self._readdb.read(Context(), lambda tx: find_run(tx, run_id))

    def find_archived(self, run_id: str) -> Run | None:
        """Return an archived run; None when there is none."""
        try:
            return decoded(_decode_run, self._read(RUN, run_id), f"{RUN} {run_id}")
        except (NotFoundError, BadRequestError):
            return None

    def exists(self, run_id: str) -> bool:
        """Return whether a run is active or archived."""
        return self._store.has_run(run_id) or self.find_archived(run_id) is not None

    def ended(self, group: str) -> list[Ended]:
        """Return the archived runs of a group and of those below it, newest first."""
        return self._readdb.read(Context(), lambda tx: find_ended(tx, group))

    def config(self, run_id: str) -> RunConfig:
        """Return the configuration of a run.

        Raises:
            NotFoundError: There is no such run.
        """
        config = self._configs.get(run_id)
        if config is None:
            config = decoded(_decode_config, self._read(RUN_CONFIG, run_id), f"{RUN_CONFIG} {run_id}")
            if len(self._configs) >= _KEPT_CONFIGS:
                self._configs.clear()
            self._configs[run_id] = config
        return config

    def forget_config(self, run_id: str) -> None:
        """Drop a configuration from memory."""
        self._configs.pop(run_id, None)

    def list(self, query: RunQuery) -> list[Run]:
        """Return active and archived runs in the query's order, each exactly once."""
        if query.limit < 0:
            raise BadRequestError("limit must be greater or equal than 0")
        limit = query.limit
        if query.last_run and query.ascending:  # the newest of a group is known only when both are
            limit = _NO_LIMIT
        active = self._active(msgspec.structs.replace(query, limit=limit))
        wide = query
        if query.last_run:  # each active one may take the place of one of the store
            wide = msgspec.structs.replace(query, limit=query.limit + len(active))
        # Read after the active ones: a run that has left them is in the store by now.
        place = self._datamanager.refresh()
        if self.following:
            self._readdb.wait_for(place, _READDB_SECONDS)
        else:
            self._readdb.catch_up()
        archived = self._readdb.read(Context(), lambda tx: find_runs(tx, wide))
        return select({run.id: run for run in (*active, *archived)}.values(), query)

    def used_tasks(self, task_ids: Iterable[str], place: ChangeGroupsToken) -> dict[str, str]:
        """Return those task ids that a run had at a place in the log, each with the first such run."""
        if self.following:
            self._readdb.wait_for(place, _READDB_SECONDS)
        else:
            self._readdb.catch_up()
        return self._readdb.read(Context(), lambda tx: find_tasks(tx, task_ids))

    def _active(self, query: RunQuery) -> Items[Run]:
        if not self.following:
            return select(self._store.runs(), query)
        self._state.catch_up(_MIRROR_SECONDS)
        with self._state.mirror.condition:
            runs = self._state.mirror.runs.candidates(query.groups, query.phases, ascending=query.ascending)
            return select_ordered(runs, query)

    def _read(self, data_type: str, object_id: str) -> bytes:
        try:
            return self._datamanager.read_object(data_type, object_id)[0]
        except NotFoundError:
            self._datamanager.refresh()  # another process may just have written it
            return self._datamanager.read_object(data_type, object_id)[0]
