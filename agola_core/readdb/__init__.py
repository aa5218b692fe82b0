"""The readdb: a disposable SQLite copy of a store, made for queries, that follows its log.

Imports the datamanager's vocabulary and `db`; the runservice stands on it.
"""

from agola_core.readdb.engine import ReadDB
from agola_core.readdb.projection import Projection, Source

__all__ = ["Projection", "ReadDB", "Source"]
