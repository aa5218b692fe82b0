"""Tracking: how far a process or a projection has come in the events of another application.

A tracking position is an object of its own. It moves in the WAL of the events or objects that were made of the event
it names, so that both are there or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from eventsourcing.persistence import Tracking, TrackingRecorder

from agola_core.datamanager import Action, ChangeGroupsToken, Put
from agola_core.errors import ConflictError, NotFoundError
from agola_core.events import EventStore
from agola_eventsourcing.errors import translated
from agola_eventsourcing.streams import change_group

_Result = TypeVar("_Result")

TRACKING = "eventsourcing.tracking"
"""The type of tracking positions: an application's name -> the id of its last notification dealt with."""


def position(store: EventStore, application_name: str) -> int | None:
    """Return the last notification of an application that was dealt with; None for none."""
    try:
        return int(store.store.read_object(TRACKING, application_name)[0])
    except NotFoundError:
        return None


def tracked(store: EventStore, tracking: Tracking, write: Callable[[Put, ChangeGroupsToken], _Result]) -> _Result:
    """Write a tracking position with what was made of it, if it is greater than the one before.

    Args:
        store: The store.
        tracking: The application and its notification.
        write: Writes the given action with its own, under the token.

    Raises:
        ConflictError: The position is not greater than the one before, or what `write` demands does not hold.
    """
    name, notification_id = tracking.application_name, tracking.notification_id
    group = change_group(TRACKING, name)
    while True:
        token = store.store.change_groups_token([group])
        before = position(store, name)
        if before is not None and before >= notification_id:
            raise ConflictError(f"notification {notification_id} of {name!r} is not after {before}, the last one")
        try:
            return write(Put(TRACKING, name, b"%d" % notification_id), token)
        except ConflictError:
            if position(store, name) == before:
                raise  # what is written along with it was refused


class AgolaTrackingRecorder(TrackingRecorder):
    """Records tracking positions; the base of a projection's view.

    Args:
        store: The store, which stays the factory's to close.

    Attributes:
        store: The store: a view keeps its objects in `store.store`, the datamanager.
    """

    def __init__(self, store: EventStore) -> None:
        self.store = store

    def insert_tracking(self, tracking: Tracking) -> None:
        """Record a position.

        Raises:
            IntegrityError: It is not greater than the last one of its application.
        """
        self.record(tracking, ())

    def record(self, tracking: Tracking, actions: Iterable[Action]) -> None:
        """Record a position together with the puts and deletes of a view's objects, all or none.

        Args:
            tracking: The position.
            actions: Of the data types in `AGOLA_DATA_TYPES`.

        Raises:
            IntegrityError: It is not greater than the last one of its application.
        """
        along = list(actions)
        with translated():
            tracked(self.store, tracking, lambda put, token: self.store.store.write_wal([*along, put], token))

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the last position of an application; None for none."""
        with translated():
            self.store.store.refresh()
            return position(self.store, application_name)
