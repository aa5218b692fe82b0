"""The mode itself: one key in the coordinator, and a record of each instance under its lease.

The key exists while the mode is on; its creation revision tells one maintenance from the next. An instance
publishes itself before it first looks at the key, and afterwards every state that it reaches; so whoever sees the
key and then finds every published instance in maintenance knows that none serves, and none can begin to before
the key is gone (`barrier`).
"""

from __future__ import annotations

import enum
import time
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from agola_core.coordinator.port import Compare, Coordinator, DeleteOp, KeyValue, PutOp, Target, iterate
from agola_core.datamanager.identity.instance import list_instances
from agola_core.decoding import DECODE_ERRORS
from agola_core.errors import BadRequestError, ConflictError, CorruptionError, DeadlineError
from agola_core.runtime import faultpoints
from agola_core.runtime.process import may_live

KEY = "rs/maintenance"
"""Agola's key `maintenance`, below the run service's prefix."""

MEMBERS = f"{KEY}/"

_ROUND_SECONDS = 1.0

faultpoints.declare("maintenance.before-enable", "maintenance.before-disable")


class MemberState(enum.StrEnum):
    """What an instance does."""

    STARTING = "starting"
    SERVING = "serving"
    ENTERING = "entering"
    MAINTENANCE = "maintenance"
    LEAVING = "leaving"


class Member(msgspec.Struct, frozen=True):
    """An instance of the service, as it publishes itself.

    Attributes:
        name: Unique among the instances.
        host: The machine.
        pid: The process there.
        state: What it does.
        mode: The maintenance that it is in, or on the way to; 0 outside.
        store: The name under which it has the store open.
        error: Why it does not get further, if it does not.
    """

    name: str
    host: str
    pid: int
    state: MemberState
    mode: int = 0
    store: str = ""
    error: str = ""


class MaintenanceStatus(msgspec.Struct, frozen=True):
    """The mode and everybody in it.

    Attributes:
        enabled: Whether the mode is on.
        settled: Whether every instance is where the mode wants it.
        since: When it was turned on; "" while it is off.
        instances: The instances that run now.
    """

    enabled: bool
    settled: bool
    since: str
    instances: tuple[Member, ...]


class _Mode(msgspec.Struct, frozen=True):
    since: str = ""


T = TypeVar("T", Member, _Mode)


def member_key(name: str) -> str:
    """Return the key under which an instance publishes itself."""
    return f"{MEMBERS}{name}"


def enable(coordinator: Coordinator) -> None:
    """Turn maintenance mode on; the instances enter it by themselves.

    Raises:
        BadRequestError: It is on already.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    faultpoints.reach("maintenance.before-enable")
    value = msgspec.json.encode(_Mode(since))
    if not coordinator.txn([Compare(KEY, 0, Target.CREATE_REVISION)], [PutOp(KEY, value)]).succeeded:
        raise BadRequestError("maintenance mode already enabled")


def disable(coordinator: Coordinator) -> None:
    """Turn maintenance mode off; the instances serve again by themselves.

    Raises:
        BadRequestError: It is off already.
    """
    item = coordinator.get(KEY)
    faultpoints.reach("maintenance.before-disable")
    if (
        item is None
        or not coordinator.txn([Compare(KEY, item.create_revision, Target.CREATE_REVISION)], [DeleteOp(KEY)]).succeeded
    ):
        raise BadRequestError("maintenance mode already disabled")


def current(coordinator: Coordinator) -> int:
    """Return the number of the present maintenance; 0 while the mode is off."""
    item = coordinator.get(KEY)
    return item.create_revision if item else 0


def status(coordinator: Coordinator) -> MaintenanceStatus:
    """Return the mode and the states of all instances, at one revision."""
    mode, members = _read(coordinator)
    settled = all(_is_in(member, mode) if mode else member.state is MemberState.SERVING for member in members)
    return MaintenanceStatus(mode is not None, settled, _decode(_Mode, mode).since if mode else "", tuple(members))


def wait_settled(coordinator: Coordinator, *, enabled: bool, timeout: float | None = None) -> MaintenanceStatus:
    """Wait until every instance is where the mode wants it.

    Args:
        coordinator: The store's.
        enabled: What the mode is expected to be.
        timeout: Seconds to wait; None waits without limit.

    Raises:
        ConflictError: Somebody else turned the mode back meanwhile.
        DeadlineError: The time was over first; names who is late.
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
    """Return the conditions under which the whole content of a store may be replaced.

    Args:
        coordinator: The store's.
        store: The name under which the caller has the store open.

    Raises:
        BadRequestError: The mode is off.
        ConflictError: Somebody is not in it yet, or has the store open without being an instance.
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
