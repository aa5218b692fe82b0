"""Validates the arguments of the datamanager; each check raises `BadRequestError` for the first problem."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from collections.abc import Sequence as Items

from agola_core.datamanager.types import (
    MAX_GROUP_CHARACTERS,
    MAX_ID_BYTES,
    Action,
    ChangeGroupsToken,
    Delete,
    NewWal,
    Options,
    Put,
)
from agola_core.errors import BadRequestError
from agola_core.runtime.clock import is_duration
from agola_core.sequence import Sequence

_DATA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_data_types(data_types: Items[str]) -> tuple[str, ...]:
    """Return the data types; each a word of up to 64 letters, digits, ".", "_" and "-", none twice."""
    if isinstance(data_types, str) or not isinstance(data_types, Iterable) or not data_types:
        raise BadRequestError("data_types must be a list of at least one data type")
    for data_type in data_types:
        if not isinstance(data_type, str) or _DATA_TYPE.fullmatch(data_type) is None:
            raise BadRequestError(f"not a data type: {data_type!r}")
    if len(set(data_types)) != len(data_types):
        raise BadRequestError(f"a data type stands twice in {list(data_types)}")
    return tuple(data_types)


def as_wal(actions: Iterable[Action]) -> tuple[Action, ...]:
    """Return the actions of a WAL as a tuple; refuse a single action."""
    if isinstance(actions, (Put, Delete)):
        raise BadRequestError(f"a WAL is a list of actions, not a single {type(actions).__name__}")
    try:
        return tuple(actions)
    except TypeError as error:
        raise BadRequestError(f"a WAL is a list of actions, not {type(actions).__name__}") from error


def as_wals(wals: Iterable[NewWal | Iterable[Action]]) -> list[NewWal | Iterable[Action]]:
    """Return several WALs as a list; refuse a single one."""
    if isinstance(wals, (Put, Delete, NewWal)):
        raise BadRequestError(f"write_wals takes a list of WALs, not a single {type(wals).__name__}")
    try:
        found = list(wals)
    except TypeError as error:
        raise BadRequestError(f"write_wals takes a list of WALs, not {type(wals).__name__}") from error
    if found and isinstance(found[0], (Put, Delete)):
        raise BadRequestError("write_wals takes a list of WALs, each a list of actions; write_wal takes one")
    return found


def as_sequence(place: Sequence | str) -> Sequence:
    """Return a place in the log, which may be given as text."""
    if isinstance(place, str):
        return Sequence.parse(place)
    if not isinstance(place, Sequence):
        raise BadRequestError(f"a place in the log is a Sequence or its text, not {place!r}"[:200])
    return place


def check_id(object_id: object) -> None:
    """Accept what may be the id of an object."""
    if not isinstance(object_id, str):
        raise BadRequestError(f"an id must be a string, not {type(object_id).__name__}")


def check_binary(file: object, method: str, what: str) -> None:
    """Accept a file of bytes with a method, "read" or "write"."""
    if isinstance(file, io.TextIOBase) or not callable(getattr(file, method, None)):
        kind = "a file of text" if isinstance(file, io.TextIOBase) else f"a {type(file).__name__}"
        raise BadRequestError(f"{what} a binary file, not {kind}: open(path, {method[0] + 'b'!r})")


def check_listing(start_after: object, limit: object, prefix: object) -> None:
    """Accept the bounds of a listing."""
    for name, given in (("start_after", start_after), ("prefix", prefix)):
        if not isinstance(given, str):
            raise BadRequestError(f"{name} must be a string, not {type(given).__name__}")
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise BadRequestError(f"a limit must be a number and not negative: {limit!r}"[:200])


def check_timeout(timeout: object) -> None:
    """Accept a number of seconds to wait."""
    if not is_duration(timeout):
        what = "a number of seconds, a hundred years at most, or None to wait without end"
        raise BadRequestError(f"a timeout is {what}, not {timeout!r}"[:200])


def check_token(token: ChangeGroupsToken) -> None:
    """Accept a token, as `change_groups_token` or `ChangeGroupsToken.decode` gave it."""
    if not isinstance(token, ChangeGroupsToken):
        raise BadRequestError(f"a token is a ChangeGroupsToken, not {type(token).__name__}: decode its text first")
    check_groups(token.groups)


def check_actions(actions: Items[Action], known: frozenset[str], options: Options) -> tuple[int, bool]:
    """Return about how many bytes a WAL's actions have, and whether any of them has a condition."""
    if not actions:
        raise BadRequestError("a WAL needs at least one action")
    if len(actions) > options.max_wal_actions:
        raise BadRequestError(f"{len(actions)} actions; a WAL holds at most {options.max_wal_actions}")
    size, conditional = 0, False
    for index, action in enumerate(actions):
        if type(action) is Put and type(action.data) is bytes:
            size += len(action.data)
            if action.if_absent:
                conditional = True
        elif type(action) is not Delete:
            raise _complaint(action, _place(index, actions), known)
        if action.expected is not None:
            conditional = True
        object_id = action.id
        if type(object_id) is not str or type(action.data_type) is not str or action.data_type not in known:
            raise _complaint(action, _place(index, actions), known)
        length = len(object_id) if object_id.isascii() else _utf8_bytes(object_id, _place(index, actions))
        if not 0 < length <= MAX_ID_BYTES:
            place = _place(index, actions)
            raise BadRequestError(f"{place}an id of {length} bytes; 1 to {MAX_ID_BYTES} are allowed")
        size += length
    if size > options.max_wal_bytes:
        raise BadRequestError(f"{size} bytes; a WAL holds at most {options.max_wal_bytes}")
    return size, conditional


def _place(index: int, actions: Items[Action]) -> str:
    return f"action {index}: " if len(actions) > 1 else ""


def _complaint(action: object, place: str, known: frozenset[str]) -> BadRequestError:
    """Return what is wrong with an action."""
    if not isinstance(action, (Put, Delete)):
        return BadRequestError(f"{place}expected Put or Delete, not {type(action).__name__}")
    if isinstance(action, Put) and type(action.data) is not bytes:
        return BadRequestError(f"{place}data must be bytes, not {type(action.data).__name__}")
    if type(action.id) is not str:
        return BadRequestError(f"{place}an id must be a string, not {type(action.id).__name__}")
    names = ", ".join(sorted(known)) or "none"
    return BadRequestError(f"{place}unknown data type {action.data_type!r}; known are {names}")


def _utf8_bytes(object_id: str, place: str) -> int:
    try:
        return len(object_id.encode())
    except UnicodeEncodeError as error:
        raise BadRequestError(f"{place}the id is not valid Unicode") from error


def check_groups(groups: Iterable[str]) -> tuple[str, ...]:
    """Return change group names: 1 to 256 characters, without "/" (Agola's rule)."""
    if isinstance(groups, str):
        raise BadRequestError(f"change groups are a list of names, not a single one: {groups!r}"[:200])
    try:
        names = tuple(groups)
    except TypeError as error:
        raise BadRequestError(f"change groups are a list of names, not {type(groups).__name__}") from error
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= MAX_GROUP_CHARACTERS:
            raise BadRequestError(f"a change group's name has 1 to {MAX_GROUP_CHARACTERS} characters: {name!r}"[:200])
        if "/" in name:
            raise BadRequestError(f"change group {name!r} has a '/'")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise BadRequestError("a change group's name is not valid Unicode") from error
    return names


def check_wal_id(wal_id: str) -> None:
    """Accept a writer's own WAL id: 1 to 256 bytes."""
    if not isinstance(wal_id, str):
        raise BadRequestError(f"a WAL id must be a string, not {type(wal_id).__name__}")
    try:
        length = len(wal_id.encode())
    except UnicodeEncodeError as error:
        raise BadRequestError("the WAL id is not valid Unicode") from error
    if length > 256:
        raise BadRequestError(f"a WAL id of {length} bytes; at most 256 are allowed")
