"""Input of every kind from outside: what comes out of its parser is a value, or an error of this package."""

import contextlib
import string
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agola_cli.main import SettingsFile, cli
from agola_core import AgolaError, ChangeGroupsToken, Sequence
from agola_core.datamanager.sstable.manifest import Manifest, Origin, Run, decode_manifest, encode_manifest
from agola_core.errors import BadRequestError
from agola_http.protocol.records import MAX_LIMIT
from agola_http.routes.runs import parse_query
from agola_http.server.endpoints import Call
from tests.soak.parsers.fuzz import targets

names = st.text(string.ascii_letters + "-_.", min_size=1, max_size=12)
counters = st.integers(0, 2**64 - 1)
sequences = st.builds(lambda epoch, counter: str(Sequence(epoch, counter)), counters, counters)
digits = st.text("0123456789abcdef", min_size=16, max_size=16)


@st.composite
def edited(draw, whole):
    """A whole input with parts cut out, repeated, or put in."""
    data = draw(st.sampled_from(whole))
    for _ in range(draw(st.integers(0, 4))):
        start, end = sorted(draw(st.integers(0, len(data))) for _ in range(2))
        data = data[:start] + draw(st.one_of(st.binary(max_size=8), st.just(data[start:end] * 2))) + data[end:]
    return data


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name.replace(" ", "-"))
def test_a_damaged_input_is_taken_or_refused(target):
    @settings(max_examples=40, deadline=None)
    @given(st.binary(max_size=64) | edited(target.whole))
    def parse(data):
        with contextlib.suppress(AgolaError):
            target.parse(target.encode_checksummed(data))

    parse()


parameters = st.sampled_from(["phase", "result", "group", "start", "limit", "asc", "lastrun", "changegroup"]) | names


@settings(deadline=None)
@given(st.lists(st.tuples(parameters, st.text(max_size=20) | st.integers().map(str)), max_size=8))
def test_any_query_of_runs_is_one_or_is_refused(pairs):
    try:
        query = parse_query(Call({"type": "http", "query_string": urlencode(pairs).encode()}))
    except BadRequestError:
        return
    assert 0 <= query.limit <= MAX_LIMIT
    assert list(query.groups) == [value for name, value in pairs if name == "group"]


@settings(deadline=None)
@given(
    st.integers(0, 2**63 - 1), st.dictionaries(names, st.integers(0, 2**63 - 1), max_size=4), digits, sequences,
)  # fmt: skip
def test_a_token_of_change_groups_is_read_as_it_was_written(revision, groups, lineage, sequence):
    token = ChangeGroupsToken(revision, groups, lineage, sequence)
    assert ChangeGroupsToken.decode(token.encode()) == token


@settings(deadline=None)
@given(
    st.integers(1, 2**53), st.integers(1, 2**64 - 1), digits, counters,
    st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2200, 1, 1)),
    st.lists(names, unique=True, max_size=4), st.sampled_from(Origin), st.data(),
)  # fmt: skip
def test_a_manifest_is_read_as_it_was_written_or_named_as_damaged(
    number, epoch, lineage, counter, created, data_types, origin, data
):
    position, when = str(Sequence(epoch, counter)), created.replace(tzinfo=UTC)
    manifest = Manifest(
        number=number, epoch=epoch, lineage=lineage, position=position, created=when,
        data_types=tuple(sorted(data_types)), runs=(Run(()),), origin=origin,
    )  # fmt: skip
    whole = encode_manifest(manifest)
    assert decode_manifest(whole, "p") == manifest
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(AgolaError, match=r"^p at offset \d"):
        decode_manifest(bytes(damaged), "p")


values = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | st.text(string.printable, max_size=10),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=4,
)
options = st.sampled_from(["url", "port", "limit", "data_dir", "no-such", "json"]) | names
tables = st.dictionaries(options, values, max_size=3)
commands = st.sampled_from(["serve", "runs", "runs.list", "status", "no.such", "executor"])


@settings(max_examples=60, deadline=None)
@given(tables, st.dictionaries(commands, tables, max_size=2))
def test_any_settings_file_gives_defaults_or_says_what_is_wrong(tmp_path_factory, top, below):
    lines = [f"{_text(key)} = {_toml(value)}" for key, value in top.items()]
    for command, table in below.items():
        lines += [f"[{command}]", *(f"{_text(key)} = {_toml(value)}" for key, value in table.items())]
    file = tmp_path_factory.mktemp("settings") / "agola-core.toml"
    file.write_text("\n".join(lines))
    try:
        SettingsFile(file).all_defaults(cli)
        said = ""
    except AgolaError as error:
        said = str(error)
    assert not said or str(file) in said


def _toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return _text(value) if isinstance(value, str) else str(value)


def _text(value):
    return '"' + "".join(f"\\u{ord(character):04x}" for character in value) + '"'
