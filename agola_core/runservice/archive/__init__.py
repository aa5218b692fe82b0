"""Finished runs: their records in the datamanager, queries over them, export, import and deletion."""
