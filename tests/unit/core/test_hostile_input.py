"""Text that is nested without end, and numbers without end: one clear error of ours from every parser."""

import base64
import time
from datetime import UTC, datetime

import click
import pytest

from agola_cli.config.settings import read_settings
from agola_cli.options.types import Time
from agola_cli.options.variables import read_variables
from agola_cli.runs.timed_line import shown_time
from agola_core import BadRequestError, ConfigError, CorruptionError
from agola_core.coordinator.etcd.settings import parse_url
from agola_core.coordinator.port import KeyValue, PutOp
from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
from agola_core.datamanager.format import layout, records
from agola_core.datamanager.format.checksummed import encode_checksummed
from agola_core.datamanager.identity.idempotency_keys import read_inherited_keys
from agola_core.datamanager.types import ChangeGroupsToken
from agola_core.maintenance import mode
from agola_core.objectstorage import open_storage
from agola_core.runservice.state import run_keys
from agola_core.runservice.state.change_groups import GroupsToken
from agola_core.runservice.state.run_record import decode_header, decode_part
from agola_core.runservice.state.store import decode_event, decode_executor, decode_task

DEEP = 100_000
NESTED = b'{"x":' * DEEP + b"1" + b"}" * DEEP
DIGITS = "9" * 5000


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 1000 + "]" * 1000,
        "x = " + "{a = " * 1000 + "1" + "}" * 1000,
        "x = " + "[" * DEEP,
        f"x = {DIGITS}",
        "x = 2026-13-45T99:00:00Z",
    ],
)
def test_settings(tmp_path, text):
    file = tmp_path / "agola-core.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"agola-core\.toml"):
        read_settings(file)


@pytest.mark.parametrize("text", ["[" * 2000, "{a: " * 2000, "a: 2026-13-45", "a: !!int " + DIGITS, "a: !!float x"])
def test_files_ofread_variables(tmp_path, text):
    file = tmp_path / "variables.yml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"variables\.yml"):
        read_variables((file,), ())


@pytest.mark.parametrize("text", [f"{DIGITS}d", "999999999999d", "99999999w", f"{DIGITS}", "\u0661m"])
def test_times(text):
    with pytest.raises(click.BadParameter, match="neither a time"):
        Time().convert(text, None, None)


@pytest.fixture(params=["Asia/Tokyo", "America/Lima"])
def zone(request, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


def test_times_at_the_ends_of_the_calendar(zone):
    for text in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01"):
        with pytest.raises(click.BadParameter, match="neither a time"):
            Time().convert(text, None, None)
    last = datetime.max.replace(tzinfo=UTC)
    assert shown_time(last)[:4] == "9999"
    assert Time().convert("2030-01-01T12:00", None, None).hour == {"Asia/Tokyo": 3, "America/Lima": 17}[zone]


def test_addresses():
    with pytest.raises(BadRequestError, match="HOST:PORT"):
        parse_url(f"etcd://host:{DIGITS}/prefix")


@pytest.mark.parametrize("token", [ChangeGroupsToken, GroupsToken])
def test_tokens(token):
    with pytest.raises(BadRequestError, match="not a change groups token"):
        token.decode(base64.b64encode(NESTED).decode())


@pytest.mark.parametrize(
    "decode",
    [
        decode_task,
        decode_executor,
        decode_header,
        decode_part,
        lambda item: decode_event(item, 1),
        lambda item: records.decode(records.HeadRecord, item.value, item.key),
    ],
)
@pytest.mark.parametrize("value", [NESTED, b"[" * DEEP, b"{", b"", b"\xff", b"\x28\xb5\x2f\xfd\xff"])
def test_records(decode, value):
    with pytest.raises(CorruptionError, match=r"^some/key at offset 0"):
        decode(KeyValue("some/key", value, 1, 1, 1, 0))


def test_records_of_maintenance(tmp_path):
    coordinator = SQLiteCoordinator(tmp_path / "coordinator.db")
    coordinator.txn([], [PutOp(mode.member_key("a"), NESTED)])
    with pytest.raises(CorruptionError, match=run_keys.PREFIX):
        mode.status(coordinator)
    coordinator.close()


def test_outcomes_of_wal_ids(tmp_path):
    storage = open_storage(tmp_path)
    storage.write(layout.wal_ids("dm/root/"), encode_checksummed(NESTED))
    with pytest.raises(CorruptionError, match="not outcomes of WAL ids"):
        read_inherited_keys(storage, "dm/root/")
