"""Addresses of stores. A URL where a directory belongs is one error that names the right argument; nothing is made."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

import agola_core
from agola_cli.main import cli
from agola_core import BadRequestError, NotFoundError, Put, StoreAddress
from agola_core.address import check_directory
from agola_core.coordinator import open_coordinator
from agola_core.embedded import repair, verify
from agola_core.executor import Executor
from agola_core.executor.drivers.host import HostDriver
from agola_core.readdb.files import ReadDBFiles
from agola_core.standalone import Standalone, open_reader, open_store

USES = {
    "open": lambda path: agola_core.open(path, data_types=["n"]),
    "past": lambda path: agola_core.open(path, data_types=["n"], at="2026-01-01T00:00:00+00:00"),
    "verify": verify,
    "repair": repair,
    "service": Standalone,
    "store": open_store,
    "reader": open_reader,
    "readdb": lambda path: ReadDBFiles(Path(path)),
    "executor": lambda path: Executor(Path(path), None, HostDriver()),
    "storage": lambda path: agola_core.open_storage(Path(path)),
    "posix": lambda path: agola_core.open_storage(f"posix://{path}"),
    "coordinator": lambda path: open_coordinator(str(Path(path))),
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize("given", [str, Path])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_url_is_no_directory(use, given):
    with pytest.raises(BadRequestError, match=r"s3:/|expected a path"):
        use(given("s3://bucket/prefix"))


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("s3://bucket/prefix", "storage= "),
        ("posix:///srv/x", "storage= "),
        ("etcd://h:2379/x", "coordinator= "),
        ("sqlite:///x.db", "coordinator= "),
        ("https://h:4000", "--url"),
        ("ftp://h/x", os.sep),
    ],
)
def test_the_error_names_the_right_argument(url, advice):
    with pytest.raises(BadRequestError, match=f"path '{url}' is a URL where a directory belongs: .*{advice}"):
        check_directory(url, "path")


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_can_be_no_path_is_told(path):
    with pytest.raises(BadRequestError, match="names no directory"):
        check_directory(path, "path")


@pytest.mark.parametrize("path", ["a:b", "./s3:/x", "/a://b", "x/s3://y", "a:/b"])
def test_a_path_is_a_path(path):
    assert check_directory(path, "path") == Path(path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--data-dir"],
        ["run", ".", "--data-dir"],
        ["status", "--data-dir"],
        ["export", "--data-dir"],
        ["executor", "--url", "http://127.0.0.1:1", "--directory"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_name_their_option(arguments):
    result = CliRunner().invoke(cli, [*arguments, "s3://bucket/prefix"])
    assert result.exit_code == 2
    assert f"Invalid value for '{arguments[-1]}'" in result.output
    assert "--storage" in result.output


def test_the_stores_of_the_fixtures_too(agola_store_factory):
    with pytest.raises(BadRequestError, match="name 's3://x' is a URL"):
        agola_store_factory("s3://x")


def test_an_address_names_both_parts(tmp_path):
    address = StoreAddress.of("store", "s3://b/p")
    assert (address.storage_url, address.coordinator_url) == ("s3://b/p", "store/coordinator.db")
    assert StoreAddress.of(address) is address
    assert StoreAddress(Path("d")).storage_url == "d/storage"
    assert StoreAddress(coordinator="etcd://h:2379").known_coordinator == "etcd://h:2379"
    assert StoreAddress(Path("nowhere")).known_coordinator is None


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: StoreAddress(coordinator="etcd://h:2379").storage_url, "or by its storage"),
        (lambda: StoreAddress(storage="s3://b/p").coordinator_url, "by both a storage and a coordinator"),
        (lambda: StoreAddress(None, "s3://b/p", "etcd://h:2379").data_directory, "name a data directory"),
        (lambda: StoreAddress.of(StoreAddress(Path("d")), "s3://b/p"), "already"),
        (lambda: agola_core.open(storage="s3://b/p", data_types=["n"]), "by both a storage and a coordinator"),
        (lambda: agola_core.open(data_types=["n"], at="2026-01-01T00:00:00+00:00"), "or by its storage"),
    ],
)
def test_an_address_that_lacks_a_part_is_told(use, message):
    with pytest.raises(BadRequestError, match=message):
        use()


@pytest.mark.parametrize("use", [agola_core.open, verify, repair], ids=["open", "verify", "repair"])
def test_nothing_is_made_where_no_store_is(use):
    with pytest.raises(NotFoundError, match="there is no store in 'none'"):
        use(StoreAddress(Path("none")))


def test_an_address_opens_the_store_that_its_parts_open(tmp_path_factory):
    directory = tmp_path_factory.mktemp("store")
    address = StoreAddress(directory / "a", str(directory / "objects"))
    with agola_core.open(address, data_types=["n"]) as dm:
        dm.write_wal([Put("n", "one", b"1")])
    assert verify(address) == []
    with agola_core.open(directory / "a", storage=str(directory / "objects")) as dm:
        assert dm.read_object("n", "one")[0] == b"1"
