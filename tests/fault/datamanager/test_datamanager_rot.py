"""Stored bytes that change by themselves: verification names each, and nothing wrong is ever read."""

import random

import pytest

import agola_core
from agola_core import CorruptionError, Delete, FormatError, Options, Put, RecoveryError
from agola_core.datamanager.format.control import read_control

OPTIONS = Options(background=False, inline_limit=40, block_size=200, file_size=600, retain_wals=2)


@pytest.fixture
def store(tmp_path):
    with agola_core.open(tmp_path, data_types=["n"], options=OPTIONS) as dm:
        dm.write_wal([Put("n", f"{number:03}", b"x" * number) for number in range(40)])
        dm.checkpoint(force=True)
        dm.write_wal([Put("n", "a", b"1" * 100), Delete("n", "003")])
        dm.checkpoint(force=True)
        dm.write_wal([Put("n", "b", b"2" * 100)])
        dm.write_wal([Put("n", "c", b"3")])
        dm.sync()
        assert dm.verify() == []
        yield dm


def objects(tmp_path):
    root = tmp_path / "storage/data"
    files = [path for path in root.rglob("*") if path.is_file()]
    return root, files


def test_every_kind_of_damage_is_found_and_named(tmp_path, store):
    root, files = objects(tmp_path)
    assert {path.suffix for path in files} == {".data", ".json", ".wals", ".payload"}
    newest = max(name for name in map(str, files) if name.endswith(".wals"))
    needed = {f"data/{path.name}" for path in files if path.suffix == ".data"} | {
        read_control(store.coordinator).checkpoint.path,
        newest.removeprefix(f"{root}/"),
    }
    generator = random.Random(1)
    checked = 0
    for path in files:
        name = str(path.relative_to(root))
        whole = path.read_bytes()
        places = range(len(whole)) if len(whole) < 60 else sorted(generator.sample(range(len(whole)), 20))
        for place in places:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            assert name in {finding.path for finding in store.verify()}, (name, place)
            checked += 1
        for length in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert name in {finding.path for finding in store.verify()}, (name, length)
        if name in needed:  # the others may be collected at any time
            path.unlink()
            assert store.verify(), name
        path.write_bytes(whole)
    assert store.verify() == []
    assert checked > 150


def read_all(tmp_path):
    """Return what a fresh process reads, or the error that it gets."""
    try:
        with agola_core.open(tmp_path, data_types=["n"], options=OPTIONS) as dm:
            return dict(dm.list_objects("n"))
    except (CorruptionError, FormatError, RecoveryError) as error:
        return error


def test_a_damaged_file_is_never_read_as_something_else(tmp_path, store):
    expected = dict(store.list_objects("n"))
    _, files = objects(tmp_path)
    generator = random.Random(2)
    for path in files:
        whole = path.read_bytes()
        for _ in range(5):
            place = generator.randrange(len(whole))
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
            outcome = read_all(tmp_path)
            assert outcome == expected or path.name in str(outcome)
        path.write_bytes(whole)
