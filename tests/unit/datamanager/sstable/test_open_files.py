"""Which data files a process keeps open: those of its manifest, and not too many of them."""

import os
import resource
from pathlib import Path

import agola_core
from agola_core import Options, Put
from agola_core.datamanager.sstable.files.block_cache import BlockCache

OPTIONS = Options(background=False, grace_period=0, retain_manifests=1, file_size=200_000)


def data_files(root):
    """Return the data files of a store that this process has open, those that are deleted among them."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:  # the listing's own
            continue
    return [link for link in links if link.startswith(f"{root.resolve()}/") and "/data/" in link]


def test_a_file_that_left_the_manifests_is_closed_while_nobody_reads_it(tmp_path):
    with agola_core.open(tmp_path, data_types=["note"], options=OPTIONS) as dm:
        for number in range(8):
            dm.write_wal([Put("note", f"n{number}", os.urandom(100_000))])
            dm.checkpoint(force=True)
            dm.collect_garbage()
            assert len(dict(dm.list_objects("note"))) == number + 1
        opened = data_files(tmp_path)
        assert 0 < len(opened) <= dm.status().data_files
        assert not [link for link in opened if link.endswith(" (deleted)")]
        reading = dm.list_objects("note")  # an older state is read on to its end
        next(reading)
        dm.write_wal([Put("note", "n0", os.urandom(2_000_000))])
        dm.checkpoint(force=True)
        dm.collect_garbage()
        assert len(list(reading)) == 7
        del reading
        dm.write_wal([Put("note", "n0", b"")])
        dm.checkpoint(force=True)
        dm.collect_garbage()
        assert not [link for link in data_files(tmp_path) if link.endswith(" (deleted)")]


def test_a_reader_in_another_process_closes_them_when_it_takes_the_checkpoint_in(tmp_path):
    with (
        agola_core.open(tmp_path, data_types=["note"], options=OPTIONS) as dm,
        agola_core.open(tmp_path, data_types=["note"], options=OPTIONS) as other,
    ):
        for _ in range(5):
            dm.write_wal([Put("note", "n", os.urandom(150_000))])
            dm.checkpoint(force=True)
            other.refresh()
            other.read_object("note", "n")
            dm.collect_garbage()
        assert not [link for link in data_files(tmp_path) if link.endswith(" (deleted)")]


def test_a_store_keeps_a_share_of_what_the_process_may_open():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
        assert BlockCache()._open_files == min(1024, hard) // 8
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
