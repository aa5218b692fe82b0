"""`gs://` and `az://` URLs: a bucket or container, a prefix and options.

::

    gs://BUCKET[/PREFIX][?OPTION=VALUE&...]
    az://CONTAINER[/PREFIX]?account=NAME[&OPTION=VALUE&...]
"""

from __future__ import annotations

import re

import msgspec

from agola_core.objectstorage.url_options import check_endpoint, check_positive, parse_options

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


class CloudOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A location and how to reach it; every field but the first two is an option of the URL.

    Attributes:
        bucket: The bucket, or the container.
        prefix: Prepended to every key, with "/" between them; "" for none.
        account: Azure's storage account; "" for what AZURE_STORAGE_ACCOUNT_NAME names.
        endpoint: The server's URL; "" for the cloud's own.
        service_account: A file with the key of a Google service account; "" for what the environment says.
        anonymous: Sign nothing.
        tls_ca: A file of certificates to trust, beside the system's.
        connect_timeout: Seconds for a connection.
        request_timeout: Seconds for one request.
        timeout: Seconds for one call, its retries included.
        attempts: How often a request is tried.
        part_size: Bytes of a part; larger objects are uploaded in parts.
    """

    bucket: str
    prefix: str = ""
    account: str = ""
    endpoint: str = ""
    service_account: str = ""
    anonymous: bool = False
    tls_ca: str = ""
    connect_timeout: float = 5.0
    request_timeout: float = 30.0
    timeout: float = 60.0
    attempts: int = 5
    part_size: int = 16 * 1024 * 1024


def parse_cloud_url(url: str) -> CloudOptions:
    """Parse a URL.

    Raises:
        BadRequestError: Something in it is malformed; names the option.

    Example:
        >>> parse_cloud_url("az://container/some/where?account=mine").account
        'mine'
    """
    options = parse_options(url, CloudOptions, _BUCKET, "object storage bucket")
    scheme = f"{url.partition('://')[0]}:// URLs"
    check_endpoint(options.endpoint, scheme)
    check_positive(options, ("connect_timeout", "request_timeout", "timeout", "attempts", "part_size"), scheme)
    return options
