"""State of the maintenance mode: a key in the coordinator, and a record of each instance under its lease.

The key exists while the mode is on; its creation revision identifies the maintenance period. An instance publishes
itself before it first reads the key, and then every state that it reaches. So if the key exists and every published
instance is in maintenance, no instance serves, and none can start to before the key is deleted (`barrier`).
"""

from __future__ import annotations

import enum
import time
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from agola_core.coordinator.port import Compare, Coordinator, DeleteOp, KeyValue, PutOp, Target, iterate
from agola_core.datamanager import list_instances
from agola_core.encoding.decoding import DECODE_ERRORS
from agola_core.errors import BadRequestError, ConflictError, CorruptionError, DeadlineError
from agola_core.runtime import faultpoints
from agola_core.runtime.processes.liveness import may_live

KEY = "rs/maintenance"
"""Agola's key `maintenance`, under the run service's prefix."""

MEMBERS = f"{KEY}/"

_ROUND_SECONDS = 1.0

faultpoints.declare("maintenance.before-enable", "maintenance.before-disable")


class MemberState(enum.StrEnum):
    """State of an instance."""

    STARTING = "starting"
    SERVING = "serving"
    ENTERING = "entering"
    MAINTENANCE = "maintenance"
    LEAVING = "leaving"


class Member(msgspec.Struct, frozen=True):
    """The published record of an instance of the service.

    Attributes:
        name: Unique name of the instance.
        host: Its machine.
        pid: Its process there.
        state: Its state.
        mode: Number of the maintenance period that it is in or entering; 0 for none.
        store: Name of its instance of the store.
        error: The error that keeps it from the next state, if any.
    """

    name: str
    host: str
    pid: int
    state: MemberState
    mode: int = 0
    store: str = ""
    error: str = ""


class MaintenanceStatus(msgspec.Struct, frozen=True):
    """The mode and the states of all instances.

    Attributes:
        enabled: Whether the mode is on.
        settled: Whether every instance has reached the state that the mode asks for.
        since: When it was turned on; "" while it is off.
        instances: The running instances.
    """

    enabled: bool
    settled: bool
    since: str
    instances: tuple[Member, ...]


class _Mode(msgspec.Struct, frozen=True):
    since: str = ""


T = TypeVar("T", Member, _Mode)


def member_key(name: str) -> str:
    """Return the key of an instance's record."""
    return f"{MEMBERS}{name}"


def enable(coordinator: Coordinator) -> None:
    """Turn maintenance mode on; the instances enter it on their own.

    Raises:
        BadRequestError: It is already on.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    faultpoints.reach("maintenance.before-enable")
    value = msgspec.json.encode(_Mode(since))
    if not coordinator.txn([Compare(KEY, 0, Target.CREATE_REVISION)], [PutOp(KEY, value)]).succeeded:
        raise BadRequestError("maintenance mode already enabled")


def disable(coordinator: Coordinator) -> None:
    """Turn maintenance mode off; the instances resume service on their own.

    Raises:
        BadRequestError: It is already off.
    """
    item = coordinator.get(KEY)
    faultpoints.reach("maintenance.before-disable")
    if (
        item is None
        or not coordinator.txn([Compare(KEY, item.create_revision, Target.CREATE_REVISION)], [DeleteOp(KEY)]).succeeded
    ):
        raise BadRequestError("maintenance mode already disabled")


def current(coordinator: Coordinator) -> int:
    """Return the number of the current maintenance period; 0 while the mode is off."""
    item = coordinator.get(KEY)
    return item.create_revision if item else 0


def status(coordinator: Coordinator) -> MaintenanceStatus:
    """Return the mode and the states of all instances, at one revision."""
    mode, members = _read(coordinator)
    settled = all(_is_in(member, mode) if mode else member.state is MemberState.SERVING for member in members)
    return MaintenanceStatus(mode is not None, settled, _decode(_Mode, mode).since if mode else "", tuple(members))


def wait_settled(coordinator: Coordinator, *, enabled: bool, timeout: float | None = None) -> MaintenanceStatus:
    """Wait until every instance has reached the state that the mode asks for.

    Args:
        coordinator: The store's coordinator.
        enabled: Whether the mode is expected to be on.
        timeout: Seconds to wait; None waits indefinitely.

    Raises:
        ConflictError: The mode was changed in the meantime.
        DeadlineError: Timeout; the message names the late instances.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with coordinator.watch(KEY, coordinator.list(KEY, limit=1).revision + 1) as watch:
        while True:
            found = status(coordinator)
            if found.enabled is not enabled:
                raise ConflictError(f"maintenance mode was turned {'off' if enabled else 'on'} by somebody else")
            if found.settled:
                return found
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise DeadlineError(f"not there yet: {_late(found.instances, enabled=enabled)}")
            watch.next(_ROUND_SECONDS if left is None else min(left, _ROUND_SECONDS))


def barrier(coordinator: Coordinator, store: str) -> list[Compare]:
    """Check that the content of a store may be replaced; return the conditions to include in the transaction.

    Args:
        coordinator: The store's coordinator.
        store: Name of the caller's instance of the store.

    Raises:
        BadRequestError: The mode is off.
        ConflictError: An instance is not in maintenance yet, or another process has the store open.
    """
    mode, members = _read(coordinator)
    if mode is None:
        raise BadRequestError("not in maintenance mode")
    late = [member for member in members if not _is_in(member, mode)]
    if late:
        raise ConflictError(f"not every instance is in maintenance mode yet: {_late(tuple(late), enabled=True)}")
    known = {member.store for member in members} | {store}
    strangers = [record for record in list_instances(coordinator) if record.name not in known and may_live(record)]
    if strangers:
        names = ", ".join(f"{record.name} (pid {record.pid} on {record.host})" for record in strangers)
        raise ConflictError(f"others have the store open: {names}")
    return [Compare(KEY, mode.create_revision, Target.CREATE_REVISION)]


def _read(coordinator: Coordinator) -> tuple[KeyValue | None, list[Member]]:
    mode, members = None, []
    for item in iterate(coordinator, KEY):
        if item.key == KEY:
            mode = item
        elif item.key.startswith(MEMBERS):
            members.append(_decode(Member, item))
    return mode, members


def _decode(record: type[T], item: KeyValue) -> T:
    try:
        return msgspec.json.decode(item.value or b"{}", type=record)
    except DECODE_ERRORS as error:
        raise CorruptionError(f"not a record of the maintenance mode: {error}", path=item.key) from error


def _is_in(member: Member, mode: KeyValue) -> bool:
    return member.state is MemberState.MAINTENANCE and member.mode == mode.create_revision


def _late(members: tuple[Member, ...], *, enabled: bool) -> str:
    wanted = MemberState.MAINTENANCE if enabled else MemberState.SERVING
    late = [member for member in members if member.state is not wanted]
    return "; ".join(
        f"{member.name} (pid {member.pid} on {member.host}) is {member.state}"
        + (f", because {member.error}" if member.error else "")
        for member in late or members
    )
