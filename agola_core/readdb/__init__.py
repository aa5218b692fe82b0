"""The readdb: a disposable SQLite copy of a store, made for queries, that follows its log.

It imports the datamanager's vocabulary and `db`; the run service uses it.
"""

from agola_core.readdb.engine import ReadDB
from agola_core.readdb.projection import Projection, Source

__all__ = ["Projection", "ReadDB", "Source"]
