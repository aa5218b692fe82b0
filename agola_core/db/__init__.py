"""SQLite databases whose transactions are bound to a context: a deadline and a cancellation.

It imports only errors and contexts; the readdb uses it.
"""

from agola_core.db.database import Database, Purpose
from agola_core.db.tx import Tx
from agola_core.runtime.context import Context

__all__ = ["Context", "Database", "Purpose", "Tx"]
