"""A client of one bucket, built on obstore: deadlines, retries of idempotent requests, errors of our taxonomy.

obstore's own retries are off because they would also repeat creations; it retries only the parts of an upload.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore

from agola_core.errors import BadRequestError, ClosedError, DeadlineError
from agola_core.objectstorage.cloud.errors import ServiceError, translate
from agola_core.objectstorage.cloud.outcomes import row_of
from agola_core.objectstorage.cloud.url import CloudOptions
from agola_core.objectstorage.remote import backoff
from agola_core.runtime.processes.forks import Origin

logger = logging.getLogger(__name__)

T = TypeVar("T")
Store = Any
"""One of obstore's: a GCSStore or an AzureStore."""


class CloudClient:
    """A client of one bucket. Thread-safe.

    Args:
        scheme: gs or az.
        options: The bucket, and how it is reached.

    Raises:
        BadRequestError: A file that an option names cannot be used, or the client refuses the options.
    """

    def __init__(self, scheme: str, options: CloudOptions) -> None:
        self.options = options
        self._closed = False
        self._origin = Origin("the storage")
        self.store = _open(scheme, options, retries=0)
        self.uploading = _open(scheme, options, retries=options.attempts - 1)

    def call(self, send: Callable[[Store], T], what: str, *, repeat: bool = True) -> T:
        """Send a request.

        Args:
            send: Sends it through an obstore store.
            what: The subject, for messages.
            repeat: Whether it may be retried.

        Raises:
            AgolaError: As the port says of each method.
        """
        self._origin.check()
        end = time.monotonic() + self.options.timeout
        attempt = 0
        while True:
            attempt += 1
            if self._closed:
                raise ClosedError("the storage was closed")
            try:
                return send(self.store)
            except (BaseError, FileNotFoundError, NotImplementedError, ValueError) as error:
                found = ServiceError.of(error)
            ours = translate(found, what, self.options.bucket)
            if not repeat or attempt >= self.options.attempts or not row_of(found).again:
                raise ours from found  # not from obstore's, whose text has signed URLs
            pause = backoff(attempt)
            if time.monotonic() + pause >= end:
                raise DeadlineError(f"{ours} (tried {attempt} times)") from found
            logger.info("trying again: attempt=%d error=%s", attempt, ours)
            time.sleep(pause)

    def close(self) -> None:
        """Refuse further requests; closing twice is harmless."""
        self._closed = True


def _open(scheme: str, options: CloudOptions, retries: int) -> Store:
    client: Any = {
        "allow_http": options.endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=options.connect_timeout),
        "timeout": timedelta(seconds=options.request_timeout),
    }
    if options.tls_ca:
        try:
            client["root_certificate"] = Path(options.tls_ca).read_bytes()
        except OSError as error:
            raise BadRequestError(f"option tls_ca: {options.tls_ca} cannot be used: {error.strerror}") from error
    retry: Any = {"max_retries": retries, "retry_timeout": timedelta(seconds=options.timeout)}
    config: Any = {"skip_signature": True} if options.anonymous else {}
    try:
        if scheme == "gs":
            given = {"base_url": options.endpoint, "service_account": options.service_account}
            config |= {name: value for name, value in given.items() if value}
            return GCSStore(options.bucket, config=config, client_options=client, retry_config=retry)
        given = {"account_name": options.account, "endpoint": options.endpoint}
        config |= {name: value for name, value in given.items() if value}
        return AzureStore(options.bucket, config=config, client_options=client, retry_config=retry)
    except (BaseError, ValueError, OSError) as error:
        told = str(error).partition("\n")[0][:300]
        raise BadRequestError(f"storage {scheme}://{options.bucket}: {told}") from None
