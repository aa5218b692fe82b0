"""SQLite databases whose transactions are bound to a context: a deadline and a cancellation.

It imports only errors and helpers; the readdb and the queries of the run service use it.
"""

from agola_core.db.database import Database, Purpose
from agola_core.db.tx import Tx
from agola_core.runtime.context import Context

__all__ = ["Context", "Database", "Purpose", "Tx"]
