"""The tables and statements of the SQLite coordinator.

Every write of a key is a row of its own, (key, revision), so a list at an old revision, a watch from an old
revision and the newest state are all reads of one table. A row without a value is a delete. Compaction removes
rows that a newer row of the same key supersedes. Keys are compared as UTF-8 bytes.
"""

from __future__ import annotations

VERSION = 1

SCHEMA = """
CREATE TABLE entry (
    key TEXT NOT NULL,
    mod INTEGER NOT NULL,
    position INTEGER NOT NULL,
    created INTEGER NOT NULL,
    version INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    value BLOB,
    PRIMARY KEY (key, mod)
) WITHOUT ROWID;
CREATE UNIQUE INDEX entry_order ON entry (mod, position);
CREATE INDEX entry_lease ON entry (lease) WHERE lease != 0;
CREATE TABLE lease (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ttl REAL NOT NULL,
    deadline REAL NOT NULL,
    boot TEXT NOT NULL
);
CREATE TABLE compaction (revision INTEGER NOT NULL);
INSERT INTO compaction VALUES (0);
"""

REVISION = "SELECT mod FROM entry ORDER BY mod DESC LIMIT 1"

NEWEST = """
SELECT value, created, mod, version, lease FROM entry WHERE key = ? ORDER BY mod DESC LIMIT 1
"""

INSERT = "INSERT INTO entry (key, mod, position, created, version, lease, value) VALUES (?, ?, ?, ?, ?, ?, ?)"

LIST = """
SELECT entry.key, entry.value, entry.created, entry.mod, entry.version, entry.lease FROM entry
WHERE entry.key >= ?1 AND (?2 = '' OR entry.key < ?2) AND entry.key > ?3 AND entry.mod <= ?4
AND entry.value IS NOT NULL
AND NOT EXISTS (
    SELECT 1 FROM entry AS newer WHERE newer.key = entry.key AND newer.mod > entry.mod AND newer.mod <= ?4
)
ORDER BY entry.key LIMIT ?5
"""

CHANGES = """
SELECT mod, key, value, created, version, lease FROM entry
WHERE mod >= ?1 AND mod < ?2 ORDER BY mod, position
"""

COMPACTED = "SELECT revision FROM compaction"

COMPACT = "UPDATE compaction SET revision = ?"

COMPACT_ENTRIES = """
DELETE FROM entry WHERE mod < ?1 AND (
    value IS NULL OR EXISTS (
        SELECT 1 FROM entry AS newer WHERE newer.key = entry.key AND newer.mod > entry.mod AND newer.mod <= ?1
    )
)
"""

LEASE_EXISTS = "SELECT 1 FROM lease WHERE id = ? AND deadline > ?"

LEASE_GRANT = "INSERT INTO lease (ttl, deadline, boot) VALUES (?, ?, ?) RETURNING id"

LEASE_RENEW = "UPDATE lease SET deadline = ?1 + ttl WHERE id = ?2 AND deadline > ?1 RETURNING ttl"

LEASE_DELETE = "DELETE FROM lease WHERE id = ?"

LEASES_EXPIRED = "SELECT id FROM lease WHERE deadline <= ?"

LEASES_REBOOTED = "UPDATE lease SET deadline = ?1 + ttl, boot = ?2 WHERE boot != ?2"

LEASE_KEYS = """
SELECT key FROM entry WHERE lease = ?1 AND value IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM entry AS newer WHERE newer.key = entry.key AND newer.mod > entry.mod
) ORDER BY key
"""
