"""Finished runs: their records in the datamanager, queries over them, export, import and deletion.

And what the service notes of its store beside them: samples of its growth, its last export.
"""
