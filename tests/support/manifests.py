"""Verifying a manifest that stands in no store."""

from agola_core.datamanager.check.verify import verify_manifest
from agola_core.datamanager.format import layout


def verify_data_files(storage, manifest):
    """Return what is wrong with a manifest's data files."""
    path = layout.manifest(layout.lineage_root(manifest.epoch, manifest.lineage), manifest.number, "0" * 16)
    return list(verify_manifest(storage, manifest, path, set()))
