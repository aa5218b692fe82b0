"""The factory that `eventsourcing` makes of `PERSISTENCE_MODULE=agola_eventsourcing`."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar, cast

from eventsourcing.dcb.persistence import DCBInfrastructureFactory
from eventsourcing.persistence import AggregateRecorder, InfrastructureFactory, InfrastructureFactoryError
from eventsourcing.utils import Environment, EnvType, resolve_topic

from agola_core.errors import AgolaError
from agola_core.events import open_events
from agola_eventsourcing.dcb import AgolaDCBRecorder
from agola_eventsourcing.recorders import AgolaAggregateRecorder, AgolaApplicationRecorder, AgolaProcessRecorder
from agola_eventsourcing.snapshots import SNAPSHOTS, AgolaSnapshotRecorder
from agola_eventsourcing.streams import IdType
from agola_eventsourcing.tracking import TRACKING, AgolaTrackingRecorder

_Class = TypeVar("_Class")


class AgolaFactory(InfrastructureFactory[AgolaTrackingRecorder], DCBInfrastructureFactory[AgolaTrackingRecorder]):
    """Makes recorders on one event store, which it opens when it is made and closes with `close`.

    Each setting is looked for under the application's name first (`BANKACCOUNTS_AGOLA_DIRECTORY`), as the library
    does it; applications that run side by side need stores of their own.

    Args:
        env: The settings:
            `AGOLA_DIRECTORY`, a directory for everything;
            `AGOLA_STORAGE` and `AGOLA_COORDINATOR`, URLs in its place, or in the place of a part;
            `AGOLA_DURABILITY`, what a write waits for: `coordinator` (the default) or `storage`;
            `AGOLA_DATA_TYPES`, the types of a view's objects, separated by commas;
            `ORIGINATOR_ID_TYPE`, `uuid` (the default) or `text`.

    Raises:
        InfrastructureFactoryError: A setting is missing or wrong, or the store cannot be opened.
    """

    DIRECTORY = "AGOLA_DIRECTORY"
    STORAGE = "AGOLA_STORAGE"
    COORDINATOR = "AGOLA_COORDINATOR"
    DURABILITY = "AGOLA_DURABILITY"
    DATA_TYPES = "AGOLA_DATA_TYPES"
    ORIGINATOR_ID_TYPE = "ORIGINATOR_ID_TYPE"

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self._id_type = self._originator_id_type()
        directory, storage, coordinator = (
            self.env.get(key) or None for key in (self.DIRECTORY, self.STORAGE, self.COORDINATOR)
        )
        if not directory and not (storage and coordinator):
            keys = ", ".join(self.env.create_keys(self.DIRECTORY))
            raise InfrastructureFactoryError(
                f"no store is named: set one of {keys}, or {self.STORAGE} and {self.COORDINATOR}"
            )
        views = [name.strip() for name in (self.env.get(self.DATA_TYPES) or "").split(",") if name.strip()]
        try:
            self.store = open_events(
                directory,
                data_types=[TRACKING, SNAPSHOTS, *views],
                storage=storage,
                coordinator=coordinator,
                durability=self.env.get(self.DURABILITY) or None,
            )
        except AgolaError as error:
            raise InfrastructureFactoryError(f"the store of {self.env.name or 'the application'}: {error}") from error

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Return a recorder of aggregates' events, or of their snapshots."""
        if purpose == "events":
            return AgolaAggregateRecorder(self.store, self._id_type)
        return AgolaSnapshotRecorder(self.store, purpose)

    def application_recorder(self) -> AgolaApplicationRecorder:
        """Return an application's recorder."""
        return self._class(self.APPLICATION_RECORDER_TOPIC, AgolaApplicationRecorder)(self.store, self._id_type)

    def tracking_recorder(
        self, tracking_recorder_class: type[AgolaTrackingRecorder] | None = None
    ) -> AgolaTrackingRecorder:
        """Return a tracking recorder.

        Args:
            tracking_recorder_class: A view's own; None for the one of `TRACKING_RECORDER_TOPIC`, or the plain one.
        """
        found = tracking_recorder_class or self._class(self.TRACKING_RECORDER_TOPIC, AgolaTrackingRecorder)
        return found(self.store)

    def process_recorder(self) -> AgolaProcessRecorder:
        """Return a process's recorder."""
        return self._class(self.PROCESS_RECORDER_TOPIC, AgolaProcessRecorder)(self.store, self._id_type)

    def dcb_recorder(self) -> AgolaDCBRecorder:
        """Return a recorder with dynamic consistency boundaries."""
        return AgolaDCBRecorder(self.store)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Close the store: whoever enters a factory, such as a projection's runner, does not close it otherwise."""
        super().__exit__(exc_type, exc_val, exc_tb)
        self.close()

    def _originator_id_type(self) -> IdType:
        found = (self.env.get(self.ORIGINATOR_ID_TYPE) or "uuid").lower()
        if found not in {"uuid", "text"}:
            raise InfrastructureFactoryError(f"{self.ORIGINATOR_ID_TYPE} is `uuid` or `text`, not {found!r}")
        return cast("IdType", found)

    def _class(self, key: str, default: type[_Class]) -> type[_Class]:
        topic = self.env.get(key)
        if not topic:
            return default
        found = resolve_topic(topic)
        if not (isinstance(found, type) and issubclass(found, default)):
            raise InfrastructureFactoryError(f"{key}: {topic} is no subclass of {default.__name__}")
        return found
