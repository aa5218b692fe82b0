"""User accounts of this machine: which user a host step runs as, and file access with that user's rights alone."""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import platform
import pwd
from collections.abc import Iterator
from functools import cache

from agola_core.encoding.numerals import whole_number
from agola_core.errors import ConfigError

_SETGROUPS = {"x86_64": 116, "aarch64": 159}


def find_account(user: str) -> pwd.struct_passwd | None:
    """Return the account of a step's user; None for the user who runs the executor.

    Raises:
        ConfigError: The user does not exist, or may not be switched to.
    """
    if not user or user in {own_name(), str(os.geteuid())}:
        return None
    try:
        account = pwd.getpwnam(user) if (number := whole_number(user)) is None else pwd.getpwuid(number)
    except (KeyError, OverflowError) as error:
        raise ConfigError(f"user {user!r} does not exist on this machine") from error
    if os.geteuid() != 0 and account.pw_uid != os.geteuid():
        raise ConfigError(f"only root can run a step as user {user!r}")
    return account


@cache
def own_name() -> str:
    """Return the name of the user who runs the executor."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def groups_of(account: pwd.struct_passwd) -> list[int]:
    """Return the groups that a user is in."""
    return [account.pw_gid, *(group.gr_gid for group in grp.getgrall() if account.pw_name in group.gr_mem)]


@contextlib.contextmanager
def acting_as(account: pwd.struct_passwd | None) -> Iterator[None]:
    """Give this thread alone a user's file access in the block; files that it creates belong to the user."""
    if account is None:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    own_groups = os.getgroups()
    _set_thread_groups(libc, groups_of(account))
    libc.setfsgid(account.pw_gid)
    libc.setfsuid(account.pw_uid)
    try:
        if libc.setfsuid(-1) != account.pw_uid:  # the call reports nothing, so it is asked
            raise ConfigError(f"cannot act as user {account.pw_name!r}")
        yield
    finally:
        libc.setfsuid(os.geteuid())
        libc.setfsgid(os.getegid())
        _set_thread_groups(libc, own_groups)


def _set_thread_groups(libc: ctypes.CDLL, groups: list[int]) -> None:
    """Set this thread's groups, by the bare system call, since the library's would change every thread."""
    number = _SETGROUPS.get(platform.machine())
    if number is not None:
        libc.syscall(number, len(groups), (ctypes.c_uint32 * len(groups))(*groups))
