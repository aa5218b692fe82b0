"""What `write_wal` waits for, however it was asked for."""

import msgspec
import pytest

import agola_core
from agola_core import BadRequestError, Durability, Options, Put, WalStatus

QUIET = Options(background=False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, WalStatus.COMMITTED),
        ({"options": Options(background=False, durability="storage")}, WalStatus.COMMITTED_STORAGE),
        ({"options": Options(background=False, durability=Durability.STORAGE)}, WalStatus.COMMITTED_STORAGE),
        ({"durability": "storage"}, WalStatus.COMMITTED_STORAGE),
        ({"durability": Durability.STORAGE}, WalStatus.COMMITTED_STORAGE),
        (
            {"durability": "coordinator", "options": Options(background=False, durability="storage")},
            WalStatus.COMMITTED,
        ),
    ],
)
def test_a_wal_is_where_it_was_asked_to_be(tmp_path, given, expected):
    with agola_core.open(tmp_path, data_types=["note"], **{"options": QUIET, **given}) as dm:
        token = dm.write_wal([Put("note", "a", b"1")])
        assert dm.wal_status(token.sequence) is expected


@pytest.mark.parametrize("wrong", ["", "Storage", "disk", 1, b"storage"])
def test_a_durability_that_is_none_is_refused(tmp_path, wrong):
    with pytest.raises(BadRequestError, match="expected 'coordinator' or 'storage'"):
        Options(durability=wrong)
    with pytest.raises(BadRequestError, match="expected 'coordinator' or 'storage'"):
        agola_core.open(tmp_path / "store", data_types=["note"], durability=wrong)
    assert not (tmp_path / "store").exists()


def test_options_that_are_copied_or_decoded_are_normal_ones():
    copied = msgspec.structs.replace(Options(durability="storage"), lock_ttl=1.0)
    assert copied.durability is Durability.STORAGE
    assert msgspec.convert({"durability": "storage"}, Options).durability is Durability.STORAGE
