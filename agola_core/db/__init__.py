"""SQLite transactions whose context, a deadline and a cancellation, is bound once.

Imports errors and contexts alone; the readdb stands on it.
"""

from agola_core.db.database import Database, Purpose
from agola_core.db.tx import Tx
from agola_core.runtime.context import Context

__all__ = ["Context", "Database", "Purpose", "Tx"]
