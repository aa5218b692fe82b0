"""Subscriptions to the notifications of an application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eventsourcing.persistence import Notification, Subscription

from agola_core.events import Query
from agola_eventsourcing.errors import translated
from agola_eventsourcing.streams import notification

if TYPE_CHECKING:
    from agola_eventsourcing.recorders import AgolaApplicationRecorder


class AgolaSubscription(Subscription["AgolaApplicationRecorder"]):
    """The notifications after one, those that are there and then those to come, from every process.

    Args:
        recorder: The application's recorder.
        gt: The notification; None for all of them.
        topics: The topics; none for all.
    """

    def __init__(self, recorder: AgolaApplicationRecorder, gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder, gt, topics)
        with translated():
            self._events = recorder.store.subscribe(Query(types=topics), after=gt or 0)

    def __next__(self) -> Notification:
        """Return the next notification; wait until there is one.

        Raises:
            StopIteration: The subscription was stopped.
        """
        with translated():
            for event in self._events:
                if event.stream and not self._has_been_stopped:
                    return notification(event, self._recorder.read_id)
                if self._has_been_stopped:
                    break
        raise StopIteration

    def stop(self) -> None:
        """End the subscription, also while another thread waits for its next notification."""
        super().stop()
        self._events.close()
