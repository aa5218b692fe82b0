"""etcd's protocol: the messages and methods that the backend uses.

The `etcd3` package cannot be imported beside a current protobuf, because the code that an old compiler generated
for it cannot. The generated files hold the serialized definitions though, so those are read, without importing
anything of the package, and loaded into a pool of their own: other packages may define the same names. What
etcd has learnt since that package was made, and a watch needs, is added to the definitions.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from agola_core.errors import BadRequestError

_FILES = ("kv_pb2.py", "auth_pb2.py", "rpc_pb2.py")
_SERIALIZED = re.compile(r"serialized_pb=_b\(('(?:[^'\\]|\\.)*')\)")
_FIELD = descriptor_pb2.FieldDescriptorProto


class Method(NamedTuple):
    """A remote call: its path, and how its messages become bytes and back."""

    path: str
    request: Any
    response: Any


def _definitions() -> list[Any]:
    found = importlib.util.find_spec("etcd3")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'etcd3'", name="etcd3")
    directory = Path(found.submodule_search_locations[0]) / "etcdrpc"
    definitions = []
    for name in _FILES:
        match = _SERIALIZED.search((directory / name).read_text())
        if match is None:
            raise BadRequestError(f"{directory / name} holds no message definitions: install etcd3 0.12")
        serialized = ast.literal_eval(match[1]).encode("latin-1")
        definitions.append(descriptor_pb2.FileDescriptorProto.FromString(serialized))
    return definitions


def _amend(rpc: Any) -> None:
    """Add what etcd 3.4 has beyond the package: fragments of large watch responses, and asking for progress."""
    messages = {message.name: message for message in rpc.message_type}
    rpc.message_type.add(name="WatchProgressRequest")
    messages["WatchRequest"].field.add(
        name="progress_request",
        number=3,
        type=_FIELD.TYPE_MESSAGE,
        type_name=".etcdserverpb.WatchProgressRequest",
        label=_FIELD.LABEL_OPTIONAL,
        oneof_index=0,
    )
    for name, number in (("WatchCreateRequest", 8), ("WatchResponse", 7)):
        messages[name].field.add(name="fragment", number=number, type=_FIELD.TYPE_BOOL, label=_FIELD.LABEL_OPTIONAL)


def _load() -> descriptor_pool.DescriptorPool:
    definitions = _definitions()
    _amend(definitions[-1])
    pool = descriptor_pool.DescriptorPool()
    for definition in definitions:
        pool.Add(definition)
    return pool


_POOL = _load()


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"etcdserverpb.{name}"))


def _method(service: str, name: str, request: str = "") -> Method:
    asked, answered = _message(f"{request or name}Request"), _message(f"{request or name}Response")
    return Method(f"/etcdserverpb.{service}/{name}", asked, answered)


RANGE = _method("KV", "Range")
TXN = _method("KV", "Txn")
COMPACT = _method("KV", "Compact", "Compaction")
WATCH = _method("Watch", "Watch")
LEASE_GRANT = _method("Lease", "LeaseGrant")
LEASE_REVOKE = _method("Lease", "LeaseRevoke")
LEASE_KEEP_ALIVE = _method("Lease", "LeaseKeepAlive")
AUTHENTICATE = _method("Auth", "Authenticate")

RangeRequest = RANGE.request
TxnRequest = TXN.request
CompactionRequest = COMPACT.request
WatchRequest = WATCH.request
WatchCreateRequest = _message("WatchCreateRequest")
WatchProgressRequest = _message("WatchProgressRequest")
LeaseGrantRequest = LEASE_GRANT.request
LeaseRevokeRequest = LEASE_REVOKE.request
LeaseKeepAliveRequest = LEASE_KEEP_ALIVE.request
AuthenticateRequest = AUTHENTICATE.request
Compare = _message("Compare")
RequestOp = _message("RequestOp")
PutRequest = _message("PutRequest")
DeleteRangeRequest = _message("DeleteRangeRequest")
DeleteRangeResponse = _message("DeleteRangeResponse")
ResponseOp = _message("ResponseOp")

EVENT_DELETE = 1
"""The type of a deletion among watch events."""
