"""Looking at a manifest that stands in no store: its files, and whether they are whole."""

from agola_core.datamanager.check.verify import verify_manifest
from agola_core.datamanager.format import layout
from agola_core.datamanager.sstable.file_lists import walk
from agola_core.datamanager.sstable.files.block_cache import BlockCache


def verify_data_files(storage, manifest):
    """Return what is wrong with a manifest's data files."""
    path = layout.manifest(layout.lineage_root(manifest.epoch, manifest.lineage), manifest.number, "0" * 16)
    return list(verify_manifest(storage, manifest, path, set()))


def data_files(storage, manifest):
    """Return a manifest's data files, newest run first."""
    return [file for run in manifest.runs for file, _ in walk(storage, BlockCache(), run)]
