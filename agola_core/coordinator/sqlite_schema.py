"""The tables and statements of the SQLite coordinator.

Every write of a key is a row of its own, so a list at an old revision, a watch from an old revision and the newest
state are all reads of one table. A row's number is its revision and its place in the transaction: rows are
appended, and their own order is the history's. A row without a value is a delete. Compaction removes rows that a
newer row of the same key supersedes. Keys are compared as UTF-8 bytes.
"""

from __future__ import annotations

VERSION = 1

PLACES = 1 << 20
"""Rows of one revision: a row's number is its revision times this, plus its place."""

SCHEMA = """
CREATE TABLE entry (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    created INTEGER NOT NULL,
    version INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    value BLOB
);
CREATE UNIQUE INDEX entry_key ON entry (key, number);
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

REVISION = "SELECT number >> 20 FROM entry ORDER BY number DESC LIMIT 1"

NEWEST = """
SELECT value, created, number >> 20, version, lease FROM entry WHERE key = ? ORDER BY number DESC LIMIT 1
"""

EXISTS = "SELECT 1 FROM entry WHERE key = ? LIMIT 1"

INSERT = "INSERT INTO entry (number, key, created, version, lease, value) VALUES (?, ?, ?, ?, ?, ?)"

LIST = """
SELECT entry.key, entry.value, entry.created, entry.number >> 20, entry.version, entry.lease FROM entry
WHERE entry.key >= ?1 AND (?2 = '' OR entry.key < ?2) AND entry.key > ?3 AND entry.number < (?4 + 1) << 20
AND entry.value IS NOT NULL
AND NOT EXISTS (
    SELECT 1 FROM entry AS newer
    WHERE newer.key = entry.key AND newer.number > entry.number AND newer.number < (?4 + 1) << 20
)
ORDER BY entry.key LIMIT ?5
"""

CHANGES = """
SELECT number >> 20, key, value, created, version, lease FROM entry
WHERE number >= ?1 << 20 AND number < ?2 << 20 ORDER BY number
"""

COMPACTED = "SELECT revision FROM compaction"

COMPACT = "UPDATE compaction SET revision = ?"

COMPACT_ENTRIES = """
DELETE FROM entry WHERE number < ?1 << 20 AND (
    value IS NULL OR EXISTS (
        SELECT 1 FROM entry AS newer
        WHERE newer.key = entry.key AND newer.number > entry.number AND newer.number < (?1 + 1) << 20
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
    SELECT 1 FROM entry AS newer WHERE newer.key = entry.key AND newer.number > entry.number
) ORDER BY key
"""
