"""Builds S3 requests and parses their responses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

from agola_core.objectstorage.s3.protocol.connection import Answer, TruncatedBodyError

Pairs = tuple[tuple[str, str], ...]


class Request(NamedTuple):
    """A request of a bucket.

    Attributes:
        method: Such as GET.
        key: Of the object; "" for the bucket itself.
        query: Names and values.
        headers: By lower-case name.
        body: May be empty.
        gives_object: Whether the answer's body is an object's and not S3's own.
    """

    method: str
    key: str = ""
    query: Pairs = ()
    headers: Pairs = ()
    body: bytes = b""
    gives_object: bool = False


def get_object(key: str, first: int | None = None, last: int | None = None, etag: str = "") -> Request:
    """Return the request for an object.

    Args:
        key: Its key.
        first: The first byte; None for the whole object, with its checksum.
        last: The last byte; None for all.
        etag: Only of this version of it; "" for any.
    """
    headers: Pairs = (("x-amz-checksum-mode", "ENABLED"),)
    if first is not None:
        headers = (("range", f"bytes={first}-{'' if last is None else last}"),)
    if etag:
        headers += (("if-match", etag),)
    return Request("GET", key, headers=headers, gives_object=True)


def head_object(key: str) -> Request:
    """Return the request for what is known of an object."""
    return Request("HEAD", key, headers=(("x-amz-checksum-mode", "ENABLED"),))


def head_of(answer: Answer) -> Answer:
    """Return an answer to `head_object`, which has a size and a time."""
    for name in ("content-length", "last-modified"):
        _field(answer.headers, name)
    return answer


def put_object(key: str, body: bytes, checksum: Pairs, *, if_absent: bool) -> Request:
    """Return the request that writes an object; with `if_absent` only where there is none."""
    return Request("PUT", key, headers=(checksum + _condition(if_absent)), body=body)


def delete_object(key: str) -> Request:
    """Return the request that deletes an object."""
    return Request("DELETE", key)


def create_bucket(region: str) -> Request:
    """Return the request that creates the bucket; "" for the region that needs no name."""
    body = f"<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
    return Request("PUT", body=body.encode() if region else b"")


def list_objects(prefix: str, start_after: str = "", delimiter: str = "", token: str = "", limit: int = 0) -> Request:
    """Return the request for a page of the list of objects (see `Page`)."""
    given = {"prefix": prefix, "start-after": start_after, "delimiter": delimiter, "continuation-token": token}
    query = tuple((name, value) for name, value in given.items() if value or name == "prefix")
    if limit:
        query += (("max-keys", str(limit)),)
    return Request("GET", query=(*query, ("list-type", "2"), ("encoding-type", "url")))


class Page(NamedTuple):
    """A page of the list of objects.

    Attributes:
        objects: Key, size and time of each.
        prefixes: The common beginnings.
        token: For the next page; "" after the last one.
    """

    objects: list[tuple[str, int, datetime]]
    prefixes: list[str]
    token: str


def page_of(answer: Answer) -> Page:
    """Return the page in an answer to `list_objects`."""
    root = _xml(answer)
    decode = unquote_plus if root.get("EncodingType") == "url" else str
    try:
        objects = [
            (decode(item["Key"]), int(item["Size"]), datetime.fromisoformat(item["LastModified"]))
            for item in root.all("Contents")
        ]
        prefixes = [decode(item["Prefix"]) for item in root.all("CommonPrefixes")]
    except (KeyError, ValueError) as error:
        raise TruncatedBodyError(f"a list without {error}") from error
    token = root.get("NextContinuationToken", "") if root.get("IsTruncated") == "true" else ""
    return Page(objects, prefixes, token)


# Uploads in parts


class Part(NamedTuple):
    """A part that was uploaded.

    Attributes:
        etag: As the server gave it.
        crc32: As the server gave it; "" for none.
    """

    etag: str
    crc32: str


class Unfinished(NamedTuple):
    """An upload that was begun and not ended."""

    key: str
    upload_id: str
    initiated: datetime


def create_upload(key: str, headers: Pairs) -> Request:
    """Return the request that begins an upload in parts."""
    return Request("POST", key, (("uploads", ""),), headers)


def upload_id_of(answer: Answer) -> str:
    """Return the id in an answer to `create_upload`."""
    return _field(_xml(answer).fields, "UploadId")


def upload_part(key: str, upload_id: str, number: int, body: bytes, checksum: Pairs) -> Request:
    """Return the request that uploads a part; numbers begin with 1."""
    return Request("PUT", key, (("partNumber", str(number)), ("uploadId", upload_id)), checksum, body)


def part_of(answer: Answer) -> Part:
    """Return what an answer to `upload_part` says."""
    return Part(_field(answer.headers, "etag"), answer.headers.get("x-amz-checksum-crc32", ""))


def _escaped(text: str) -> str:
    """Return a text for XML; `xml.sax.saxutils` would import all of `urllib.request`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def complete_upload(key: str, upload_id: str, parts: Iterable[Part], *, if_absent: bool) -> Request:
    """Return the request that makes one object of the parts; with `if_absent` only where there is none."""
    items = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{_escaped(part.etag)}</ETag>"
        f"{f'<ChecksumCRC32>{_escaped(part.crc32)}</ChecksumCRC32>' if part.crc32 else ''}</Part>"
        for number, part in enumerate(parts, 1)
    )
    body = f'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{items}</CompleteMultipartUpload>'
    return Request("POST", key, (("uploadId", upload_id),), _condition(if_absent), body.encode())


def abort_upload(key: str, upload_id: str) -> Request:
    """Return the request that ends an upload without an object."""
    return Request("DELETE", key, (("uploadId", upload_id),))


def list_uploads(key_marker: str = "", id_marker: str = "") -> Request:
    """Return the request for a page of the bucket's unfinished uploads, after a key and an id.

    It names no prefix: MinIO lists uploads of one exact key or of the whole bucket only.
    """
    query: Pairs = (("encoding-type", "url"), ("uploads", ""))
    if key_marker:
        query += (("key-marker", key_marker), ("upload-id-marker", id_marker))
    return Request("GET", query=query)


def uploads_of(answer: Answer) -> tuple[list[Unfinished], tuple[str, str] | None]:
    """Return the uploads of an answer to `list_uploads`, and the markers of the next page if there is one."""
    root = _xml(answer)
    decode = unquote_plus if root.get("EncodingType") == "url" else str
    try:
        uploads = [
            Unfinished(decode(item["Key"]), item["UploadId"], datetime.fromisoformat(item["Initiated"]))
            for item in root.all("Upload")
        ]
    except (KeyError, ValueError) as error:
        raise TruncatedBodyError(f"a list of uploads without {error}") from error
    if root.get("IsTruncated") != "true" or not uploads:
        return uploads, None
    return uploads, (
        decode(root.get("NextKeyMarker", "")) or uploads[-1].key,
        root.get("NextUploadIdMarker", "") or uploads[-1].upload_id,
    )


def error_of(answer: Answer) -> tuple[str, str] | None:
    """Return the code and the message of an error in an answer's body; None when it has none."""
    if b"<Error" not in answer.body[:500]:
        return None
    try:
        root = ET.fromstring(answer.body)  # noqa: S314 - expat bounds the expansion of entities
    except ET.ParseError:
        return None
    if _local(root.tag) == "ErrorResponse":  # as STS answers
        root = next((child for child in root if _local(child.tag) == "Error"), root)
    if _local(root.tag) != "Error":
        return None
    fields = {_local(child.tag): child.text or "" for child in root}
    return fields.get("Code", ""), fields.get("Message", "")


class _Document:
    """The elements of an XML answer, without their name spaces."""

    def __init__(self, root: ET.Element) -> None:
        self.fields = {_local(child.tag): child.text or "" for child in root}
        self._root = root

    def get(self, name: str, default: str = "") -> str:
        return self.fields.get(name, default)

    def all(self, name: str) -> Iterator[dict[str, str]]:
        for child in self._root:
            if _local(child.tag) == name:
                yield {_local(field.tag): field.text or "" for field in child}


def _xml(answer: Answer) -> _Document:
    try:
        return _Document(ET.fromstring(answer.body))  # noqa: S314 - expat bounds the expansion of entities
    except ET.ParseError as error:
        raise TruncatedBodyError(f"it is no XML: {error}") from error


def _field(fields: dict[str, str], name: str) -> str:
    if not fields.get(name):
        raise TruncatedBodyError(f"it has no {name}")
    return fields[name]


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _condition(if_absent: bool) -> Pairs:
    return (("if-none-match", "*"),) if if_absent else ()
