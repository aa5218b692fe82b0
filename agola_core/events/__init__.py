"""The event store: streams with expected versions, queries with append conditions, subscriptions.

Imports the datamanager, whose log decides and keeps everything; only `aio` and adapters import it.
"""

from agola_core.datamanager.format.events import Event, RecordedEvent
from agola_core.events.consumer import Consumer
from agola_core.events.opening import open_events
from agola_core.events.reading import Events
from agola_core.events.store import EventStore
from agola_core.events.subscription import Subscription
from agola_core.events.types import ANY, NO_STREAM, AppendCondition, Query, StreamEvents

__all__ = [
    "ANY",
    "NO_STREAM",
    "AppendCondition",
    "Consumer",
    "Event",
    "EventStore",
    "Events",
    "Query",
    "RecordedEvent",
    "StreamEvents",
    "Subscription",
    "open_events",
]
