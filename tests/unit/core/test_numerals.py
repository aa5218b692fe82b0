"""Numbers from outside have ASCII digits alone, wherever they come from; what has others is one clear error."""

import math

import click
import pytest

import agola_core
from agola_cli.main import cli
from agola_cli.options.types import DURATION, RETENTION, TIME, Decimal, Whole
from agola_core import Options, Put
from agola_core.coordinator.etcd.settings import parse_url
from agola_core.encoding.numerals import decimal_number, whole_number
from agola_core.errors import BadRequestError, ConfigError
from agola_core.events import Event, Query
from agola_core.executor.drivers.exitfile import read_exit_code
from agola_core.executor.drivers.host.accounts import find_account
from agola_core.objectstorage.cloud.url import parse_cloud_url
from agola_core.objectstorage.s3.url import parse_s3_url
from agola_core.runconfig import parse_config
from agola_core.runservice.model.options import RetentionRule, ServiceOptions
from agola_core.runtime.clock import MOST_SECONDS
from agola_core.runtime.context import Context
from agola_http.access import sessions
from agola_http.executor.app import _number
from agola_http.protocol.errors import RefusedError
from agola_http.server.connections.bodies import _check_length
from agola_http.server.endpoints import whole_number as parameter

NONE = ["", "\u0663", "\u00b2", "\uff15", "1_000", " 5 ", "+5x", "0x5", "1e3x", "nan", "inf", "-inf", "9" * 5000]


@pytest.mark.parametrize("text", NONE, ids=lambda text: ascii(text[:9]))
def test_what_is_no_number_is_one_clear_error(text):
    assert whole_number(text) is None
    assert decimal_number(text) is None
    for kind, value in (
        *((kind, text) for kind in (Whole(0), Decimal(0), DURATION, TIME)),
        *((RETENTION, f"/={part}") for part in (text, f"{text}d", f"30d,{text}")),
        (TIME, f"{text}d"),
    ):
        with pytest.raises(click.BadParameter):
            kind.convert(value, None, None)
    for parse in (
        lambda: parse_url(f"etcd://h:{text}" if text else "etcd://:"),
        lambda: parse_url(f"etcd://h/?timeout={text}"),
        lambda: parse_s3_url(f"s3://bucket?timeout={text}"),
        lambda: parse_s3_url(f"s3://bucket?attempts={text}"),
        lambda: parse_cloud_url(f"gs://bucket?timeout={text}"),
        lambda: parameter(text, "limit"),
        lambda: _number(text, "offset"),
        lambda: _check_length({"content-length": text}, 10),
    ):
        with pytest.raises((BadRequestError, RefusedError)):
            parse()
    if text:
        with pytest.raises(ConfigError, match="does not exist"):
            find_account(text)
    assert not sessions.is_of(f"{text}.{sessions._signature(b'd', text)}", b"d", 0)


@pytest.mark.parametrize("text", ["\u0663s", "\u0661.5m", "1_0s", " 5s", "nans"])
def test_durations_of_a_configuration(text):
    config = f"runs: [{{name: r, tasks: [{{name: t, timeout: '{text}', steps: [{{run: 'true'}}]}}]}}]"
    with pytest.raises(ConfigError, match="expected seconds, or a duration"):
        parse_config(config.encode(), "config.yml")


@pytest.mark.parametrize(
    ("written", "code"),
    [("begun\n3\n", 3), ("begun\n255\n", 255), ("begun\n256\n", None), ("begun\n-1\n", None), ("begun\n3", None)]
    + [(f"begun\n{text}\n", None) for text in ("\u0663", "\u00b2", "9" * 50, "", " 3")],
    ids=ascii,
)
def test_exit_codes_that_a_command_wrote_itself(tmp_path, written, code):
    (tmp_path / "0.exit").write_text(written)
    assert read_exit_code(tmp_path / "0.exit") == code


@pytest.mark.parametrize("seconds", [math.inf, 1e12, math.nan, "5"], ids=repr)
def test_times_beyond_a_hundred_years_are_refused_where_they_are_given(tmp_path, seconds):
    """A wait of so long is an OverflowError, which ended background loops; so is a date so long ago."""
    intervals = ("sync_interval", "checkpoint_interval", "retain_seconds", "grace_period", "lock_ttl")
    services = ("executor_ttl", "fetch_patience", "sweep_interval", "cache_expiry", "retention_interval")
    store = agola_core.open_events(tmp_path, data_types=["n"])
    with store, store.store.watch() as feed:
        for refused in (
            *(lambda name=name: Options(**{name: seconds}) for name in intervals),
            *(lambda name=name: ServiceOptions(**{name: seconds}) for name in services),
            lambda: RetentionRule("/", max_age=seconds),
            lambda: Context(timeout=seconds),
            lambda: store.store.write_wal([Put("n", "a", b"")], timeout=seconds),
            lambda: store.store.write_wals([], timeout=seconds),
            lambda: store.append([Event("E", b"")], timeout=seconds),
            lambda: store.subscribe(Query()).next(timeout=seconds),
            lambda: feed.next(timeout=seconds),
        ):
            with pytest.raises(BadRequestError, match=r"expected|a timeout is"):
                refused()
    for text in ("999999999w", "36501d"):
        with pytest.raises(click.BadParameter, match="longer than a hundred years"):
            DURATION.convert(text, None, None)
    Options(sync_interval=MOST_SECONDS)
    assert DURATION.convert("36500d", None, None) == MOST_SECONDS


def test_numbers_are_taken():
    assert Whole(0, 65535).convert("80", None, None) == 80
    assert Whole(1).convert(4, None, None) == 4
    assert Decimal(0).convert("1.5", None, None) == 1.5
    for value in (True, 1.5, -1):
        with pytest.raises(click.BadParameter):
            Whole(0).convert(value, None, None)
    with pytest.raises(click.BadParameter, match="not in the range"):
        Whole(0, 65535).convert("65536", None, None)


def test_no_option_takes_what_python_takes_for_a_number():
    def commands(command):
        yield command
        if isinstance(command, click.Group):
            for name in command.list_commands(None):
                yield from commands(command.get_command(None, name))

    options = [(command.name, option) for command in commands(cli) for option in command.params]
    kinds = [(name, option.name, option.type) for name, option in options if not getattr(option, "count", False)]
    numbers = (click.types.IntParamType, click.types.FloatParamType)
    assert [item for item in kinds if isinstance(item[2], numbers) and not isinstance(item[2], Whole | Decimal)] == []
    assert len([item for item in kinds if isinstance(item[2], Whole)]) > 10
