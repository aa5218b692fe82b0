"""A whole store on Azure Blob Storage and Google Cloud Storage (Azurite and fake-gcs-server)."""

import pytest

import agola_core
from agola_core import Put
from tests.support import clouds


@pytest.mark.parametrize("scheme", clouds.SCHEMES)
def test_a_store_lives_there_and_recovers_from_it_alone(scheme, tmp_path):
    if not clouds.program(scheme):
        pytest.skip(f"there is no program for {scheme}:// (see tests/support/clouds.py)")
    with clouds.start_cloud(scheme, tmp_path) as url:

        def open_store(coordinator):
            return agola_core.open(
                data_types=["n"],
                storage=url("store"),
                coordinator=str(tmp_path / coordinator),
                durability="storage",
                options=agola_core.Options(background=False, inline_limit=60),
            )

        expected = {f"{number:03}": b"x" * number for number in range(30)}
        with open_store("first.db") as dm:
            for key, data in expected.items():
                dm.write_wal([Put("n", key, data)])
            dm.checkpoint(force=True)
            dm.clean_up()
            dm.collect_garbage()
            assert dm.verify() == []
        with open_store("second.db") as dm:
            assert dict(dm.list_objects("n")) == expected
            dm.write_wal([Put("n", "more", b"1")])
            assert dm.verify() == []
