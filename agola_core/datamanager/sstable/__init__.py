"""Sorted string tables: data files, their blocks and indexes, and the manifests that name them."""
