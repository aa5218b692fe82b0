"""Tar archives of workspaces and caches: packing files, and safely unpacking untrusted archives."""
