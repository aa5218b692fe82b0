"""Tables and statements of the SQLite coordinator.

Every write of a key is a row of its own, so lists and watches of old revisions and reads of the newest state all use
one table. A row's number combines its revision and its position in the transaction: rows are appended, in the order
of the history. A row without a value is a deletion. Compaction removes rows that are superseded by a newer row of the
same key. Keys are compared as UTF-8 bytes.

The index by key, `keyed`, is updated lazily: a commit writes pages of `entry` alone, and from time to time one of them
adds the rows after `progress.indexed`, a few hundred at most, to the index. Reads by key consult both.
"""

from __future__ import annotations

VERSION = 2

PLACES = 1 << 20
"""Maximum rows per revision: a row's number is its revision times this, plus its position."""

UNINDEXED = 256
"""Maximum number of rows that are not yet indexed."""

SCHEMA = """
CREATE TABLE entry (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    created INTEGER NOT NULL,
    version INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    value BLOB
);
CREATE INDEX entry_lease ON entry (lease) WHERE lease != 0;
CREATE TABLE keyed (key TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (key, number)) WITHOUT ROWID;
CREATE TABLE progress (indexed INTEGER NOT NULL);
INSERT INTO progress VALUES (0);
CREATE TABLE lease (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ttl REAL NOT NULL,
    deadline REAL NOT NULL,
    boot TEXT NOT NULL
);
CREATE TABLE compaction (revision INTEGER NOT NULL);
INSERT INTO compaction VALUES (0);
"""

FROM_VERSION_1 = """
CREATE TABLE keyed (key TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (key, number)) WITHOUT ROWID;
INSERT INTO keyed SELECT key, number FROM entry;
CREATE TABLE progress (indexed INTEGER NOT NULL);
INSERT INTO progress SELECT ifnull(max(number), 0) FROM entry;
DROP INDEX entry_key;
"""

# Added within version 2: older releases ignore it.

IDENTITY_TABLE = "CREATE TABLE IF NOT EXISTS identity (id TEXT NOT NULL)"

IDENTITY_NEW = "INSERT INTO identity VALUES (?)"

IDENTITY = "SELECT id FROM identity"

REVISION = "SELECT number >> 20 FROM entry ORDER BY number DESC LIMIT 1"

NEWEST = """
SELECT value, created, number >> 20, version, lease FROM entry WHERE number = (
    SELECT max(number) FROM (
        SELECT number FROM entry WHERE number > (SELECT indexed FROM progress) AND key = ?1
        UNION ALL
        SELECT max(number) FROM keyed WHERE key = ?1
    )
)
"""

INSERT = "INSERT INTO entry (number, key, created, version, lease, value) VALUES (?, ?, ?, ?, ?, ?)"

# Statements of the writer, which knows the rows that are not yet indexed.

WAITING = "SELECT key, number FROM entry WHERE number > (SELECT indexed FROM progress) ORDER BY number"

INDEXED = "SELECT 1 FROM keyed WHERE key = ? LIMIT 1"

LAST_INDEXED = "SELECT max(key) FROM keyed WHERE key >= ? AND key < ?"

NEWEST_INDEXED = """
SELECT value, created, number >> 20, version, lease FROM entry
WHERE number = (SELECT max(number) FROM keyed WHERE key = ?)
"""

NUMBERED = "SELECT value, created, number >> 20, version, lease FROM entry WHERE number = ?"

INDEX = "INSERT INTO keyed SELECT key, number FROM entry WHERE number > (SELECT indexed FROM progress)"

INDEX_DONE = "UPDATE progress SET indexed = ifnull((SELECT max(number) FROM entry), indexed)"

# Lists: the indexed keys from ?1 (inclusive) to ?2 (exclusive; '' for no end), and the rows that are not yet indexed,
# both at revision ?3. The first query steps from key to key, so that a key's old rows cost nothing.

_LISTED = """
WITH RECURSIVE found (key) AS (
    SELECT min(key) FROM keyed WHERE key >= ?1
    UNION ALL
    SELECT (SELECT min(key) FROM keyed WHERE keyed.key > found.key) FROM found
    WHERE found.key IS NOT NULL AND (?2 = '' OR found.key < ?2)
)
SELECT {} FROM found CROSS JOIN entry ON entry.number = (
    SELECT max(number) FROM keyed WHERE keyed.key = found.key AND keyed.number < (?3 + 1) << 20
)
WHERE entry.value IS NOT NULL AND (?2 = '' OR found.key < ?2)
LIMIT ?4
"""

LIST = _LISTED.format("found.key, entry.value, entry.created, entry.number >> 20, entry.version, entry.lease")

LIVING = _LISTED.format("found.key")

LIST_WAITING = """
SELECT key, value, created, number >> 20, version, lease FROM entry
WHERE number > (SELECT indexed FROM progress) AND number < (?3 + 1) << 20
AND key >= ?1 AND (?2 = '' OR key < ?2)
ORDER BY number
"""

CHANGES = """
SELECT number >> 20, key, value, created, version, lease FROM entry
WHERE number >= ?1 << 20 AND number < ?2 << 20 ORDER BY number
"""

# Writes a page and changes nothing; an UPDATE to the same value would write none.
BARRIER = "INSERT INTO compaction VALUES (-1); DELETE FROM compaction WHERE revision = -1"

COMPACTED = "SELECT revision FROM compaction"

COMPACT = "UPDATE compaction SET revision = ?"

COMPACT_ENTRIES = """
DELETE FROM entry WHERE number < ?1 << 20 AND (
    value IS NULL OR EXISTS (
        SELECT 1 FROM keyed
        WHERE keyed.key = entry.key AND keyed.number > entry.number AND keyed.number < (?1 + 1) << 20
    )
)
"""

COMPACT_KEYED = """
DELETE FROM keyed WHERE number < ?1 << 20
AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.number = keyed.number)
"""

LEASE_EXISTS = "SELECT 1 FROM lease WHERE id = ? AND deadline > ?"

LEASE_GRANT = "INSERT INTO lease (ttl, deadline, boot) VALUES (?, ?, ?) RETURNING id"

LEASE_RENEW = "UPDATE lease SET deadline = ?1 + ttl WHERE id = ?2 AND deadline > ?1 RETURNING ttl"

LEASE_DELETE = "DELETE FROM lease WHERE id = ?"

LEASES_EXPIRED = "SELECT id FROM lease WHERE deadline <= ?"

LEASES_NEXT = "SELECT min(deadline) FROM lease"

LEASES_REBOOTED = "UPDATE lease SET deadline = ?1 + ttl, boot = ?2 WHERE boot != ?2"

LEASE_KEYS = "SELECT key, number >> 20 FROM entry WHERE lease = ? AND value IS NOT NULL ORDER BY key"
