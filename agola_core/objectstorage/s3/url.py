"""`s3://` URLs: a bucket, a prefix and options, never a secret.

::

    s3://BUCKET[/PREFIX][?OPTION=VALUE&...]
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping

import msgspec

from agola_core.errors import BadRequestError
from agola_core.objectstorage.url_options import check_endpoint, check_positive, parse_options

MIN_PART_SIZE = 5 * 1024 * 1024
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


class Checksum(enum.StrEnum):
    """The checksum that protects uploads."""

    CRC32 = "crc32"
    MD5 = "md5"


class S3Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A location and how to reach it; every field but the first two is an option of the URL.

    Attributes:
        bucket: The bucket.
        prefix: Prepended to every key, with "/" between them; "" for none.
        endpoint: The server's URL; "" for AWS, or what the AWS configuration names.
        region: The region; "" for what the AWS configuration names, or us-east-1 with an endpoint.
        path_style: Whether the bucket is part of the path and not of the host name; None: with an endpoint.
        profile: A profile of the AWS configuration files.
        credentials: Read `NAME_ACCESS_KEY_ID`, `NAME_SECRET_ACCESS_KEY` and `NAME_SESSION_TOKEN` from the environment,
            for this NAME, instead of the usual AWS chain.
        anonymous: Sign nothing.
        tls_verify: Whether the server's certificate is checked.
        tls_ca: A file of certificates to trust, instead of the system's.
        tls_cert: A file with the certificate that this client shows, and perhaps its key.
        tls_key: A file with that certificate's key, where it is not in the same one.
        create_bucket: Create the bucket when it is missing.
        connect_timeout: Seconds for a connection.
        request_timeout: Seconds for one request, beside a second for each MiB of its body.
        timeout: Seconds for one call, its retries included, beside a second for each MiB.
        attempts: How often an idempotent request is tried.
        concurrency: The most requests at the same time.
        part_size: Bytes of a part; larger objects are uploaded in parts.
        checksum: How uploads are protected; md5 for servers that do not know S3's newer checksums.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    path_style: bool | None = None
    profile: str = ""
    credentials: str = ""
    anonymous: bool = False
    tls_verify: bool = True
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    create_bucket: bool = False
    connect_timeout: float = 5.0
    request_timeout: float = 20.0
    timeout: float = 60.0
    attempts: int = 5
    concurrency: int = 64
    part_size: int = 16 * 1024 * 1024
    checksum: Checksum = Checksum.CRC32

    @property
    def location(self) -> str:
        """The URL without its options, for messages."""
        at = f" at {self.endpoint}" if self.endpoint else ""
        return f"s3://{self.bucket}{'/' if self.prefix else ''}{self.prefix}{at}"


def parse_s3_url(url: str) -> S3Options:
    """Parse a URL.

    Raises:
        BadRequestError: Something in it is malformed; names the option, and never its value when it is unknown.

    Example:
        >>> parse_s3_url("s3://bucket/some/where?endpoint=http://localhost:9000").prefix
        'some/where'
    """
    options = parse_options(url, S3Options, _BUCKET, "S3 bucket")
    return _checked(options)


def _checked(options: S3Options) -> S3Options:
    check_endpoint(options.endpoint, "an s3:// URL")
    if options.region and not _REGION.fullmatch(options.region):
        raise BadRequestError("option region of an s3:// URL: expected letters, digits and '-'")
    counts = ("connect_timeout", "request_timeout", "timeout", "attempts", "concurrency")
    check_positive(options, counts, "an s3:// URL")
    if options.part_size < MIN_PART_SIZE:
        raise BadRequestError(f"option part_size of an s3:// URL must be at least {MIN_PART_SIZE}")
    if sum(map(bool, (options.profile, options.credentials, options.anonymous))) > 1:
        raise BadRequestError("options profile, credentials and anonymous of an s3:// URL exclude each other")
    if options.tls_key and not options.tls_cert:
        raise BadRequestError("option tls_key of an s3:// URL needs tls_cert")
    return options


def explicit_credentials(name: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the key, the secret and perhaps the token that the environment has under a name.

    Raises:
        BadRequestError: A variable is missing; names it.
    """
    found = {}
    for field, variable in (("key", "ACCESS_KEY_ID"), ("secret", "SECRET_ACCESS_KEY"), ("token", "SESSION_TOKEN")):
        value = environment.get(f"{name}_{variable}")
        if value:
            found[field] = value
        elif field != "token":
            raise BadRequestError(f"option credentials={name}: the environment has no {name}_{variable}")
    return found
