"""Opens the journal's database: settings, tables and format version."""

import os
import secrets
import sqlite3
import time
from pathlib import Path

from fieldlab.errors import FieldlabError
from ingest.journal.format import FORMAT

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signal (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS record (
    position INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL, time INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, readings INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS record_last ON record (last);
CREATE TABLE IF NOT EXISTS consumer (
    name TEXT PRIMARY KEY, position INTEGER NOT NULL, keep_from INTEGER NOT NULL, state BLOB, hash TEXT NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deadletter (
    id INTEGER PRIMARY KEY AUTOINCREMENT, store TEXT NOT NULL, machine TEXT NOT NULL, signal TEXT NOT NULL,
    readings INTEGER NOT NULL, reason TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    body BLOB NOT NULL, time INTEGER NOT NULL);
"""


def open_writer(path: Path) -> sqlite3.Connection:
    """The one connection that writes and checkpoints; makes the file if it is missing, mode 0600.

    Raises:
        FieldlabError: if the file is of a newer format.
        sqlite3.DatabaseError: if it is not a database, or damaged.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA wal_autocheckpoint=2000")
    db.execute("PRAGMA journal_size_limit=67108864")
    db.execute("PRAGMA cache_size=-4096")
    db.executescript(_TABLES)
    db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (str(FORMAT),))
    db.execute("INSERT OR IGNORE INTO meta VALUES ('created', ?)", (str(time.time_ns()),))
    db.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", (secrets.token_hex(8),))
    (found,) = db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    if int(found) > FORMAT:
        db.close()
        raise FieldlabError(f"{path} has journal format {found}; this program knows {FORMAT}: install a newer Fieldlab")
    return db


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, timeout=10)
    db.execute("PRAGMA query_only=ON")
    return db
