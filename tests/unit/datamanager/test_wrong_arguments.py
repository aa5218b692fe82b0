"""What newcomers get wrong ends in one clear error of ours, at the call that was wrong."""

import io
import math

import msgspec
import pytest

import agola_core
from agola_core import BadRequestError, ClosedError, Options, Put, Sequence
from agola_core.datamanager import Compression
from agola_core.events import Event, Query
from agola_core.readdb import ReadDB


class Notes:
    name, version, data_types, schema = "notes", 1, ("note",), "CREATE TABLE note (id TEXT)"

    def apply(self, tx, actions):
        pass


class Other(Notes):
    name, data_types = "other", ("note", "nothing")


class Nameless(Notes):
    name = None


class Texted(Notes):
    version = "1"


class Inert(Notes):
    apply = None


@pytest.fixture(scope="module")
def dm(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    with agola_core.open(path, data_types=["note"], options=Options(background=False)) as opened:
        opened.write_wal([Put("note", "a", b"1")])
        yield opened


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sync_interval": "x"}, "option sync_interval: expected a number, not 'x'"),
        ({"sync_interval": math.nan}, "option sync_interval: expected a number"),
        ({"sync_interval": True}, "option sync_interval: expected a number"),
        ({"sync_interval": -1}, "option sync_interval: expected at least 0, not -1"),
        ({"max_wal_bytes": -1}, "option max_wal_bytes: expected at least 1, not -1"),
        ({"max_wal_bytes": 1.5}, "option max_wal_bytes: expected a whole number, not 1.5"),
        ({"block_size": 0}, "option block_size: expected at least 1"),
        ({"lock_ttl": 0}, "option lock_ttl: expected more than 0"),
        ({"background": "no"}, "option background: expected True or False, not 'no'"),
        ({"instance": 5}, "option instance: expected a text, not 5"),
        ({"durability": "some"}, "durability 'some'"),
    ],
)
def test_an_option_is_checked_where_it_is_given(given, said):
    with pytest.raises(BadRequestError, match=said):
        Options(**given)
    with pytest.raises(BadRequestError, match=said):
        msgspec.structs.replace(Options(), **given)


def test_options_are_options(tmp_path):
    for wrong in ({}, {"sync_interval": 1}, "x", 0):
        for opening in (agola_core.open, agola_core.open_events):
            with pytest.raises(BadRequestError, match=r"options are an agola_core\.Options"):
                opening(tmp_path / "store", data_types=["note"], options=wrong)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("projections", "said"),
    [
        (Notes(), "projections are a list, not a single one"),
        (Notes, "projections are a list, not a single one"),
        (None, "projections are a list, not a NoneType"),
        ([], "at least one projection"),
        ([Notes], r"a projection is an object: Notes\(\), not the class"),
        ([5], "projection int: name must be a text"),
        ([Notes(), Notes()], "two projections have the name 'notes'"),
        ([Nameless()], "projection Nameless: name must be a text"),
        ([Texted()], "projection Texted: version must be a number"),
        ([Inert()], "projection Inert has no method apply"),
        ([Notes(), Other()], "projection 'other' wants objects of an unknown type, 'nothing'"),
    ],
)
def test_a_readdb_says_what_is_wrong_with_its_projections(dm, tmp_path, projections, said):
    with pytest.raises(BadRequestError, match=said):
        ReadDB(dm, tmp_path / "below" / "readdb.db", projections)
    assert not (tmp_path / "below").exists()


def test_a_schema_that_is_no_sql_is_named_and_leaves_no_file(dm, tmp_path):
    class Broken(Notes):
        schema = "CREATE TABLE nothing (id TEXT)"  # a word of SQL

    with pytest.raises(BadRequestError, match='creates the tables is wrong: near "nothing"'):
        ReadDB(dm, tmp_path / "readdb.db", [Broken()]).start()
    assert list(tmp_path.iterdir()) == []


def test_a_projection_may_want_what_the_store_has_and_events(dm, tmp_path):
    class Both(Notes):
        data_types = ("note", "agola.event")

    with ReadDB(dm, tmp_path / "readdb.db", [Both()]) as readdb:
        assert readdb.position == dm.sequence
    with pytest.raises(BadRequestError, match="a readdb follows an open datamanager, not a str"):
        ReadDB("store", tmp_path / "readdb.db", [Notes()])


CALLS = [
    (lambda dm: dm.export("x"), "export writes a binary file, not a str: open(path, 'wb')"),
    (lambda dm: dm.export(io.StringIO()), "export writes a binary file, not a file of text"),
    (lambda dm: dm.export(io.BytesIO(), "zip"), "ExportFormat 'zip': expected one of 'native', 'agola'"),
    (lambda dm: dm.export(io.BytesIO(), compression="zip"), "Compression 'zip': expected one of 'none', 'gz', 'zst'"),
    (lambda dm: next(dm.export_stream("zip")), "ExportFormat 'zip'"),
    (lambda dm: dm.import_("x"), "import_ reads a binary file, not a str: open(path, 'rb')"),
    (lambda dm: dm.import_(b"x"), "import_ reads a binary file, not a bytes"),
    (lambda dm: dm.import_(io.StringIO("x")), "import_ reads a binary file, not a file of text"),
    (lambda dm: dm.list_objects("note", 5), "start_after must be a string, not int"),
    (lambda dm: dm.list_objects("note", limit="5"), "a limit must be a number"),
    (lambda dm: dm.list_objects("note", prefix=b"a"), "prefix must be a string, not bytes"),
    (lambda dm: dm.list_objects(["note"]), "unknown data type ['note']"),
    (lambda dm: dm.read_object("note", 5), "an id must be a string, not int"),
    (lambda dm: dm.get("note", ["a"]), "an id must be a string, not list"),
    (lambda dm: dm.exists("note", None), "an id must be a string, not NoneType"),
    (lambda dm: dm.entry("note", b"a"), "an id must be a string, not bytes"),
    (lambda dm: dm.watch(5), "a place in the log is a Sequence or its text, not 5"),
    (lambda dm: dm.wal_status(5), "a place in the log is a Sequence or its text, not 5"),
    (lambda dm: dm.write_wal([Put("note", "a", b"")], timeout="x"), "a timeout is a number of seconds"),
    (lambda dm: dm.write_wals([], timeout="x"), "a timeout is a number of seconds"),
    (lambda dm: dm.change_groups_token(5), "change groups are a list of names, not int"),
    (lambda dm: agola_core.open(5, data_types=["a"]), "path is a path, not 5"),
    (lambda dm: agola_core.open("x", data_types=5), "data_types must be a list"),
    (lambda dm: agola_core.open("x", coordinator=5), "coordinator is a URL, not 5"),
    (lambda dm: agola_core.open("x", storage=5), "storage is a URL"),
    (lambda dm: agola_core.open_storage(5), "a storage is a URL or an fsspec file system, not 5"),
]


@pytest.mark.parametrize(("call", "said"), CALLS, ids=[said[:40] for _, said in CALLS])
def test_a_wrong_argument_is_named(dm, tmp_path, monkeypatch, call, said):
    monkeypatch.chdir(tmp_path)
    before = dm.sequence
    with pytest.raises(BadRequestError) as raised:
        call(dm)
    assert said in str(raised.value)
    assert dm.sequence == before
    assert list(tmp_path.iterdir()) == []


def test_names_do_for_formats(dm):
    assert dm.export(one := io.BytesIO(), "agola", compression="gz") == dm.export(
        two := io.BytesIO(), agola_core.ExportFormat.AGOLA, compression=Compression.GZIP
    )
    assert one.getvalue() == two.getvalue()
    assert dm.watch(str(Sequence(1, 0))).next(0.0) is not None


def test_wrong_arguments_of_an_event_store_are_named(tmp_path):
    with agola_core.open_events(tmp_path) as store:
        event = Event("A")
        for call, said in [
            (lambda: store.append(5), "events are a list of Events, not int"),
            (lambda: store.append([event], condition=5), "conditions are a list of AppendConditions, not int"),
            (lambda: store.append([event], by=5), "by is the reader that `consume` gave, not int"),
            (lambda: store.append_all(5), "appends are a list of StreamEvents, not int"),
            (lambda: store.append_all([5]), "appends are a list of StreamEvents, and 5 is none"),
            (lambda: Query(tags=5), "a list of names, not int"),
        ]:
            with pytest.raises(BadRequestError) as raised:
                call()
            assert said in str(raised.value)
        assert store.head == 0


def test_a_snapshot_refuses_unknown_types_and_is_not_read_once_it_is_closed(dm):
    with dm.snapshot() as snapshot:
        for read in (snapshot.get, snapshot.entry):
            assert read("note", "none") is None
            for wrong, said in (
                (("nothing", "a"), "unknown data type 'nothing'"),
                (("note", 1), "an id must be a string"),
            ):
                with pytest.raises(BadRequestError, match=said):
                    read(*wrong)
        for read in (snapshot.scan, lambda data_type: snapshot.count([data_type])):
            with pytest.raises(BadRequestError, match="unknown data type 5"):
                read(5)
        with pytest.raises(BadRequestError, match="start_after must be a string"):
            snapshot.scan("note", 5)
    for read in (lambda: snapshot.get("note", "a"), lambda: snapshot.scan("note"), lambda: snapshot.count(["note"])):
        with pytest.raises(ClosedError, match="the snapshot was closed"):
            read()
