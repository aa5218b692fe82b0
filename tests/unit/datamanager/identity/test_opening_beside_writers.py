"""A store is opened while others write to it: they are not taken for a storage that is ahead of its coordinator."""

from agola_core import Options, Put
from agola_core.coordinator.sqlite.coordinator import SQLiteCoordinator
from agola_core.datamanager import DataManager
from agola_core.datamanager.format import layout
from agola_core.objectstorage.posix.storage import PosixStorage

OPTIONS = Options(background=False)


class Overtaken(PosixStorage):
    """Lets somebody else act between two looks of whoever opens the store."""

    overtake = staticmethod(lambda: None)

    def list(self, prefix="", start_after="", recursive=True):
        if prefix == layout.LINEAGES:
            self.overtake()
        return super().list(prefix, start_after, recursive)


def test_what_is_committed_and_synced_while_a_store_is_opened_is_no_sign_of_an_old_coordinator(tmp_path):
    writers = SQLiteCoordinator(tmp_path / "c.db"), PosixStorage(tmp_path / "s")
    openers = SQLiteCoordinator(tmp_path / "c.db"), Overtaken(tmp_path / "s")
    with DataManager(*writers, ["n"], OPTIONS) as writer:
        writer.write_wal([Put("n", "a", b"1")])

        def overtake():
            writer.write_wal([Put("n", "b", b"2")])
            writer.sync()

        openers[1].overtake = overtake
        with DataManager(*openers, ["n"], OPTIONS) as opened:
            assert opened.read_object("n", "b")[0] == b"2"
    for backend in (*writers, *openers):
        backend.close()
