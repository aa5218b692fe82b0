"""Finds and refreshes AWS credentials.

Sources in order, as in AWS's own tools: environment variables, a profile's keys, its `credential_process`, a web
identity, a container's endpoint, an EC2 instance. A profile with SSO or a role is resolved by botocore.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from agola_core.objectstorage.s3.auth.configuration import ROLES, Configuration
from agola_core.objectstorage.s3.auth.signing import Credentials
from agola_core.objectstorage.s3.url import S3Options, explicit_credentials
from agola_core.runtime.processes.forks import fork_safe

_EARLY_SECONDS = 300.0
_PROCESS_SECONDS = 60.0

Source = Callable[[], Credentials | None]


class NoCredentialsError(Exception):
    """There are no credentials, or they cannot be fetched."""


class CredentialCache:
    """Caches credentials and refreshes them shortly before they expire. Thread-safe.

    Args:
        fetch: Fetches them.
    """

    def __init__(self, fetch: Callable[[], Credentials]) -> None:
        self._fetch = fetch
        self._lock = fork_safe(threading.Lock())
        self._current: Credentials | None = None

    def get(self) -> Credentials:
        """Return valid credentials.

        Raises:
            NoCredentialsError: There are none.
        """
        current = self._current
        if current is not None and not _ends_within(current, _EARLY_SECONDS):
            return current
        with self._lock:
            current = self._current
            if current is not None and not _ends_within(current, _EARLY_SECONDS):
                return current
            try:
                self._current = self._fetch()
            except NoCredentialsError:
                if current is None or _ends_within(current, 0):
                    raise
            assert self._current is not None
            return self._current


def credentials_of(options: S3Options, configuration: Configuration) -> CredentialCache | None:
    """Return the credentials of a storage; None for anonymous access.

    Raises:
        BadRequestError: The variables that the option `credentials` names are missing.
    """
    if options.anonymous:
        return None
    if options.credentials:
        found = explicit_credentials(options.credentials, os.environ)
        fixed = Credentials(found["key"], found["secret"], found.get("token", ""))
        return CredentialCache(lambda: fixed)
    return CredentialCache(lambda: _chain(configuration))


def _chain(configuration: Configuration) -> Credentials:
    from agola_core.objectstorage.s3.auth.instance_credentials import (  # noqa: PLC0415 - seldom used
        from_container,
        from_instance,
        from_web_identity,
    )

    sources: list[Source] = [
        lambda: None if configuration.is_chosen else _from_environment(configuration.environment),
        lambda: _from_botocore(configuration),
        lambda: _from_profile(configuration),
        lambda: _from_process(configuration),
        lambda: from_web_identity(configuration),
        lambda: from_container(configuration),
        lambda: from_instance(configuration),
    ]
    for source in sources:
        found = source()
        if found is not None:
            return found
    raise NoCredentialsError(
        "Unable to locate credentials: neither the environment nor the AWS configuration files have any"
    )


def _from_environment(environment: Mapping[str, str]) -> Credentials | None:
    key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not key:
        return None
    if not secret:
        raise NoCredentialsError("the environment has AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY")
    return Credentials(key, secret, environment.get("AWS_SESSION_TOKEN", ""))


def _from_profile(configuration: Configuration) -> Credentials | None:
    key, secret = configuration.get("aws_access_key_id"), configuration.get("aws_secret_access_key")
    if not key:
        return None
    if not secret:
        raise NoCredentialsError(f"profile {configuration.profile!r} has aws_access_key_id and no secret")
    return Credentials(key, secret, configuration.get("aws_session_token"))


def _from_process(configuration: Configuration) -> Credentials | None:
    command = configuration.get("credential_process")
    if not command:
        return None
    where = f"credential_process of profile {configuration.profile!r}"
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, check=True, timeout=_PROCESS_SECONDS)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        told = type(error).__name__ if isinstance(error, subprocess.SubprocessError) else error
        raise NoCredentialsError(f"{where} failed: {told}") from None  # the command may have secrets in it
    return decoded(done.stdout, where, "SessionToken")


def _from_botocore(configuration: Configuration) -> Credentials | None:
    """Return the credentials of a profile with SSO or a role, resolved by botocore."""
    special = next((name for name in ROLES if configuration.get(name)), None)
    if special is None or configuration.get("web_identity_token_file"):
        return None
    if importlib.util.find_spec("botocore") is None:
        raise NoCredentialsError(
            f"profile {configuration.profile!r} has {special}, for which botocore is needed: pip install botocore"
        )
    import botocore.exceptions  # noqa: PLC0415 - optional
    import botocore.session  # noqa: PLC0415

    try:
        found = botocore.session.Session(profile=configuration.profile).get_credentials()
        frozen = found.get_frozen_credentials() if found is not None else None
    except botocore.exceptions.BotoCoreError as error:
        raise NoCredentialsError(f"profile {configuration.profile!r}: {error}") from error
    if frozen is None:
        return None
    ends = getattr(found, "_expiry_time", None)  # what botocore itself renews by
    return Credentials(
        frozen.access_key, frozen.secret_key, frozen.token or "", ends.timestamp() if ends is not None else None
    )


def decoded(text: bytes, where: str, token: str) -> Credentials:
    """Return the credentials in a JSON document.

    Args:
        text: The document.
        where: It comes from, for messages.
        token: The name of the session's token in it.

    Raises:
        NoCredentialsError: There are none in it.
    """
    try:
        document: dict[str, Any] = json.loads(text)
        ends = document.get("Expiration")
        return Credentials(
            str(document["AccessKeyId"]),
            str(document["SecretAccessKey"]),
            str(document.get(token) or ""),
            datetime.fromisoformat(ends).timestamp() if ends else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NoCredentialsError(f"{where} gave no credentials") from None


def _ends_within(credentials: Credentials, seconds: float) -> bool:
    return credentials.expires is not None and credentials.expires - seconds < time.time()
