"""The datamanager: an application's handle on its store."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Items
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, overload

from agola_core.coordinator.port import Compare, Coordinator
from agola_core.datamanager.format.events import MARKS, RESERVED
from agola_core.datamanager.log.commit.pending_wal import CoordinatorOps, EventsAppend
from agola_core.datamanager.log.feed import Feed
from agola_core.datamanager.objects.history import History
from agola_core.datamanager.objects.update import UPDATE_TRIES, update
from agola_core.datamanager.open_store import OpenStore
from agola_core.datamanager.operations import Operations
from agola_core.datamanager.read.reader import T
from agola_core.datamanager.sstable.view import View
from agola_core.datamanager.types import Action, ChangeGroupsToken, Event, NewWal, Options, Put, as_options
from agola_core.datamanager.validate import (
    as_sequence,
    as_wal,
    as_wals,
    check_actions,
    check_id,
)
from agola_core.datamanager.writer import Writer
from agola_core.errors import (
    AgolaError,
    BadRequestError,
    CorruptionError,
    NotFoundError,
)
from agola_core.objectstorage.port import ObjectStorage
from agola_core.runtime.lazy import LazyModule
from agola_core.runtime.progress import Progress
from agola_core.runtime.threads.supervisor import Supervisor
from agola_core.sequence import Sequence

if TYPE_CHECKING:
    from agola_core.datamanager.objects import codec as codec_module
    from agola_core.datamanager.objects import mapping as mapping_module
    from agola_core.datamanager.objects import subscriber as subscriber_module
    from agola_core.datamanager.transfer.export import Export, ExportParts
    from agola_core.datamanager.transfer.export_format import ExportFormat
else:
    codec_module = LazyModule("agola_core.datamanager.objects.codec")
    mapping_module = LazyModule("agola_core.datamanager.objects.mapping")
    subscriber_module = LazyModule("agola_core.datamanager.objects.subscriber")

V = TypeVar("V")


class DataManager(Operations):
    """A store: a log of events, checkpointed to object storage. Thread-safe; a context manager.

    Use `agola_core.open` to make one.

    Args:
        coordinator: The coordinator, which commits the log.
        storage: The object storage, which keeps it.
        data_types: The types of objects that the application stores; None for those that the store has.
        options: How the datamanager behaves.
        recover: Take the state in storage even though the coordinator has another one.
        read_only: Only read, and publish nothing: the backends need not accept writes.
        clock: Seconds since 1970; for information, it orders nothing.
        new_uuid: Makes unique ids of 32 hexadecimal digits.

    Raises:
        BadRequestError: The store has only objects of other types.
        RecoveryError: The coordinator is behind the storage, or belongs to another store.
        CorruptionError: Stored data that must be read is damaged.
        UnavailableError: A backend cannot be reached.

    Attributes:
        coordinator: The coordinator, for layers above.
        storage: The object storage, for layers above.
        data_types: The types that it was opened with, or those that the store has.
        options: Its options.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        storage: ObjectStorage,
        data_types: Items[str] | None,
        options: Options | None = None,
        *,
        recover: bool = False,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
        new_uuid: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._store = OpenStore(
            coordinator,
            storage,
            data_types,
            as_options(options),
            clock,
            new_uuid,
            recover=recover,
            read_only=read_only,
        )
        self._log = self._store.log
        self._writer = Writer(self._store)
        self.coordinator = coordinator
        self.storage = storage
        self.options = self._store.options
        self.data_types = self._store.data_types
        self._known_types = frozenset(self.data_types) - RESERVED
        self._supervisor = Supervisor("subscribers")
        self._subscribers: set[subscriber_module.Subscriber] = set()

    # Writing

    def write_wal(
        self,
        actions: Iterable[Action],
        token: ChangeGroupsToken | None = None,
        *,
        wal_id: str = "",
        timeout: float | None = None,
        coordinator_ops: CoordinatorOps | None = None,
    ) -> ChangeGroupsToken:
        """Commit actions as one WAL: all of them or none.

        A token protects only from writers who name one of its change groups. `Put(..., expected=...)` and
        `if_absent` protect their object from every writer; they are decided as the WAL is committed.

        Args:
            actions: Puts and deletes; the last one on an id wins.
            token: What the writer saw of some change groups: if one has changed since, nothing is written. A WAL
                without a token moves no change group: those who hold one do not notice it.
            wal_id: An idempotency key: a retry with the same id and actions returns the first outcome instead of
                writing twice, as long as the id is remembered (`Options.retain_wal_ids`). After a recovery, that
                outcome is a token of the history before: read again before writing with a token.
            timeout: Seconds to wait for the WAL's turn, and with storage durability for its sync.
            coordinator_ops: Operations on the caller's own coordinator keys, committed in the same transaction.

        Returns:
            The token at the WAL's revision, for the same change groups.

        Raises:
            BadRequestError: The actions, the token or the id are malformed; nothing was written.
            ConflictError: A change group has changed, the token is too old, an object is not what an action expects,
                or a guard of `coordinator_ops` does not hold; nothing was written.
            DeadlineError: The time was over before the WAL's turn, and nothing was written; or the WAL was
                committed and its sync is still under way, as the message then says.
            UnknownOutcomeError: The coordinator was lost in mid-commit and did not come back in time.
        """
        self._store.check_open()
        wal = as_wal(actions)
        size, conditional = check_actions(wal, self._known_types, self.options)
        return self._writer.write(
            wal, size, token, wal_id, timeout, coordinator_ops=coordinator_ops, conditional=conditional
        )

    def update(
        self,
        data_type: str,
        object_id: str,
        change: Callable[[bytes | None], bytes | None],
        *,
        tries: int = UPDATE_TRIES,
        timeout: float | None = None,
    ) -> bytes | None:
        """Change one object by what it is, whoever else writes it: a function is called again until nobody was first.

        Args:
            data_type: One of the store's types.
            object_id: The object's id.
            change: Gets the object, None if there is none, and returns what it becomes, None to delete it. What it
                returns unchanged is not written. It may be called several times, and should do nothing else.
            tries: How often to try.
            timeout: Seconds to wait, as for `write_wal`, each time.

        Returns:
            What the object became.

        Raises:
            ContentionError: Others were first each time; nothing was written.
            BadRequestError: The type is unknown, or the function returned something else than bytes.
        """
        return update(
            data_type,
            object_id,
            change,
            tries,
            lambda: self.entry(data_type, object_id),
            lambda action: self.write_wal([action], timeout=timeout),
        )

    @overload
    def mapping(self, data_type: str) -> mapping_module.ObjectMapping[bytes]: ...
    @overload
    def mapping(self, data_type: str, codec: type[V] | codec_module.Codec[V]) -> mapping_module.ObjectMapping[V]: ...
    def mapping(self, data_type: str, codec: Any = bytes) -> mapping_module.ObjectMapping[Any]:
        """Return the objects of a type as a mutable mapping from their ids.

        Args:
            data_type: One of the store's types.
            codec: `bytes`; any other type that msgspec knows, such as a `msgspec.Struct`, `dict[str, int]`, or
                `typing.Any`, for values as JSON; or an object with `encode` and `decode`.

        Raises:
            BadRequestError: The type is unknown, or the codec is none.
        """
        self._store.check_open()
        from agola_core.datamanager.objects.codec import as_codec  # noqa: PLC0415 - few use it
        from agola_core.datamanager.objects.mapping import ObjectMapping  # noqa: PLC0415 - few use it

        return ObjectMapping(self, self._known(data_type), as_codec(codec))

    def write_wals(
        self, wals: Iterable[NewWal | Iterable[Action]], *, timeout: float | None = None
    ) -> list[ChangeGroupsToken | AgolaError]:
        """Commit many WALs, in their order, in as few transactions as hold them; each has a verdict of its own.

        Each WAL is all or none by itself, and what refuses one of them does not refuse the others. A WAL whose large
        payload a collection takes before the commit is stored again, with those after it: the order stays.

        Args:
            wals: Lists of actions; a `NewWal` where a WAL has a token or an id.
            timeout: Seconds to wait for their turn, and with storage durability for their syncs.

        Returns:
            For each WAL the token at its revision, or the error that `write_wal` would have raised: if it is a
            `ConflictError` or a `BadRequestError`, the WAL was not written; an `UnavailableError` says so, too, if
            that is so.

        Raises:
            BadRequestError: `wals` is not a list of WALs.
            DeadlineError: The turn did not come in time; nothing was written.
        """
        self._store.check_open()
        return self._writer.write_all([self._checked(wal) for wal in as_wals(wals)], timeout)

    def _checked(self, wal: NewWal | Iterable[Action]) -> NewWal | AgolaError:
        try:
            checked = (
                NewWal(as_wal(wal.actions), wal.token, wal.wal_id) if isinstance(wal, NewWal) else NewWal(as_wal(wal))
            )
            check_actions(checked.actions, self._known_types, self.options)
        except AgolaError as error:
            return error
        return checked

    def append_events(
        self,
        append: EventsAppend,
        batches: Items[Put],
        actions: Iterable[Action] = (),
        token: ChangeGroupsToken | None = None,
        *,
        timeout: float | None = None,
        guards: tuple[Compare, ...] = (),
    ) -> ChangeGroupsToken:
        """Commit events, and other actions with them, as one WAL; `EventStore.append` calls it.

        Args:
            append: The events and their conditions; afterwards `append.last` is the last one's position.
            batches: The same events, encoded (see `format.events.unplaced`).
            actions: Other puts and deletes.
            token: What the writer saw of some change groups.
            timeout: Seconds to wait for the WAL's turn, and with storage durability for its sync.
            guards: Comparisons of coordinator keys that must hold.

        Raises:
            ConflictError: A condition or a guard does not hold, or a change group moved; nothing was written.
            BadRequestError: Event ids were used before for other events; nothing was written.
        """
        self._store.check_open()
        others = as_wal(actions)
        size = sum([len(batch.data) for batch in batches])
        if size > self.options.max_wal_bytes:
            raise BadRequestError(f"{size} bytes of events; a WAL holds at most {self.options.max_wal_bytes}")
        conditional = False
        if others:
            more, conditional = check_actions(others, self._known_types | {MARKS}, self.options)
            size += more
        ops = CoordinatorOps(guards=guards) if guards else None
        wal = (*others, *batches)
        return self._writer.write(
            wal, size, token, timeout=timeout, coordinator_ops=ops, events=append, conditional=conditional
        )

    def append_mark(self, mark: Put, guards: tuple[Compare, ...] = ()) -> ChangeGroupsToken:
        """Record how far a reader of events has come, as a WAL of its own.

        Args:
            mark: The position, as an action.
            guards: Comparisons of coordinator keys that must hold.

        Raises:
            ConflictError: A guard does not hold; nothing was written.
        """
        self._store.check_open()
        size, _ = check_actions((mark,), frozenset({MARKS}), self.options)
        ops = CoordinatorOps(guards=guards) if guards else None
        return self._writer.write((mark,), size, coordinator_ops=ops)

    def change_groups_token(self, groups: Iterable[str]) -> ChangeGroupsToken:
        """Return the current state of some change groups; data read afterwards is at least as new.

        Args:
            groups: Names of at most 256 characters, without "/".
        """
        self._store.check_open()
        return self._writer.token(groups)

    # Reading

    def read_object(
        self, data_type: str, object_id: str, change_groups: Iterable[str] = ()
    ) -> tuple[bytes, ChangeGroupsToken]:
        """Return an object, and a token of some change groups that is never newer than the object.

        Args:
            data_type: One of the store's types.
            object_id: The object's id.
            change_groups: The groups of the token.

        Raises:
            NotFoundError: There is no such object.
        """
        token = self.change_groups_token(change_groups)
        known = self._known(data_type)
        check_id(object_id)
        data = self._read(lambda view: view.get(known, object_id))
        if data is None:
            raise NotFoundError(f"{data_type} {object_id!r} does not exist")
        return data, token

    def refresh(self) -> Sequence:
        """Apply what other processes have committed so far, and return the newest WAL's sequence."""
        self._log.catch_up()
        return self._log.view.sequence

    def watch(self, after: Sequence | str | None = None) -> Feed:
        """Return the feed of the WALs after a sequence.

        Args:
            after: A sequence that a token, an event or a snapshot gave; None for the newest WAL.

        Raises:
            CompactedError: The WALs after it are no longer kept: read a snapshot, go on from its sequence.
            FencedError: The store was imported or recovered since: likewise.
        """
        self._store.check_open()
        if after is None:
            return Feed(self._log, self._log.view.sequence)
        return Feed(self._log, as_sequence(after))

    def history(self, data_type: str = "", object_id: str = "") -> History:
        """Return the changes that are kept, oldest first: of one object, of a type, or of all objects.

        WALs are kept in storage until no retained checkpoint needs them (`Options.retain_manifests`,
        `Options.retain_seconds`); what an import or a recovery began with has no changes.

        Args:
            data_type: Only objects of this type; "" for all.
            object_id: Only the object with this id; "" for all of the type.

        Raises:
            BadRequestError: The type is unknown, or an id was given without one.
        """
        self._store.check_open()
        if data_type:
            self._known(data_type)
        elif object_id:
            raise BadRequestError(f"the history of object {object_id!r} needs its type, too")
        return History(self._log, data_type, object_id)

    def subscribe(
        self, callback: Callable[[Event], object], after: Sequence | str | None = None
    ) -> subscriber_module.Subscriber:
        """Call a function with every WAL after a sequence, in a thread that ends with the datamanager.

        Args:
            callback: Called with one WAL after another. If it raises, it is called again with the same one, later.
            after: A sequence that a token, an event or a snapshot gave; None for the newest WAL.

        Raises:
            BadRequestError: The callback is no function.
            CompactedError: The WALs after the sequence are no longer kept.
            FencedError: The store was imported or recovered since.
        """
        if not callable(callback):
            raise BadRequestError(f"subscribe takes a function of an event, not {type(callback).__name__}")
        from agola_core.datamanager.objects.subscriber import Subscriber  # noqa: PLC0415 - few use it

        subscriber = Subscriber(self.watch(after), callback, self._supervisor, self._subscribers.discard)
        self._subscribers.add(subscriber)
        return subscriber

    def wait_for_change(self, after: Sequence, stopped: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait for a WAL after a sequence; return whether there is one, or `stopped()` is true.

        Args:
            after: The sequence.
            stopped: Checked again on each `wake_waiting`.
            timeout: Seconds to wait; None waits until one comes.

        Raises:
            ClosedError: The datamanager was closed.
        """
        return self._log.wait(lambda: stopped() or self._log.view.sequence > after, timeout)

    def wake_waiting(self) -> None:
        """Wake everybody in `wait_for_change`, to check whether to stop."""
        with self._log.lock:
            self._log.changed.notify_all()

    @property
    def sequence(self) -> Sequence:
        """The newest WAL that this process knows."""
        return self._log.view.sequence

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._store.closed

    @property
    def stored_types(self) -> tuple[str, ...]:
        """The types of objects that the store was made for or has objects of, sorted."""
        return tuple(self._log.view.data_types())

    @property
    def lineage(self) -> str:
        """The id of the store's current history; an import or a recovery changes it."""
        return self._log.lineage.lineage

    # Lifecycle

    def close(self) -> None:
        """Stop subscribers and loops, sync what was committed, and withdraw from the store. Closing twice is harmless.

        A storage that brings nothing forward for ten seconds is not waited for any longer: a warning is logged, and
        what it lacks stays in the coordinator until the store is opened again. Nothing is lost.

        The coordinator and the storage stay open: they belong to whoever opened them (`agola_core.open` opens and
        closes both).
        """
        if self._log.origin.is_here:
            for subscriber in list(self._subscribers):
                subscriber.close()
        self._store.close()

    def __repr__(self) -> str:
        """Return the types, the newest WAL and where the store is."""
        state = "closed" if self._store.closed else f"at {self.sequence}"
        types = ", ".join(self.data_types)
        return f"<DataManager of {types} {state} in {self.storage!r}, {self.coordinator!r}>"

    def _read(self, read: Callable[[View], T]) -> T:
        self._store.check_open()
        view = self._log.view
        try:
            return read(view)
        except CorruptionError:
            if self._log.view.manifest.number == view.manifest.number:
                raise
            with self._pinned_view() as newer:  # a file may be collected once a newer checkpoint took its place
                return read(newer)

    def _pinned_view(self) -> AbstractContextManager[View]:
        return self._store.pinned_view()

    @contextmanager
    def _exported(self, form: ExportFormat, parts: ExportParts | None, progress: Progress) -> Iterator[Export]:
        from agola_core.datamanager.transfer.export import Export  # noqa: PLC0415 - few use it

        with self._store.newest_view() as (view, revision):
            yield Export(view, revision, self.data_types, form, parts=parts, progress=progress)

    def _check_open(self) -> None:
        self._store.check_open()
