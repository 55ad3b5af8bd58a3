"""Opens the journal's database: settings, tables and format version."""

import os
import secrets
import sqlite3
import time
from pathlib import Path

from fieldlab.errors import FieldlabError
from ingest.journal.migrations import migrate

FORMAT = 1
"""Of the tables; records have a version of their own."""

TABLES = """
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
CREATE TABLE IF NOT EXISTS deadletter_dropped (
    store TEXT NOT NULL, reason TEXT NOT NULL, letters INTEGER NOT NULL, readings INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (store, reason)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gap (
    id TEXT PRIMARY KEY, signal INTEGER NOT NULL, source TEXT NOT NULL, cause TEXT NOT NULL, start INTEGER NOT NULL,
    end INTEGER NOT NULL, state TEXT NOT NULL, revision INTEGER NOT NULL, recovered INTEGER NOT NULL,
    lost INTEGER NOT NULL, detail TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gap_folded (
    signal INTEGER NOT NULL, cause TEXT NOT NULL, state TEXT NOT NULL, gaps INTEGER NOT NULL, seconds REAL NOT NULL,
    recovered INTEGER NOT NULL, lost INTEGER NOT NULL, PRIMARY KEY (signal, cause, state)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signal_source (
    signal INTEGER PRIMARY KEY, source TEXT NOT NULL, guarantee TEXT NOT NULL);
"""


def open_writer(path: Path) -> sqlite3.Connection:
    """The one connection that writes and checkpoints; makes the file if it is missing, mode 0600.

    Raises:
        FieldlabError: if the file is of a newer format, or an older one that cannot be migrated; it stays as it is.
        sqlite3.DatabaseError: if it is not a database, or damaged.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    try:
        _prepare(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    old = FORMAT
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        (found,) = db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone() or (str(FORMAT),)
        if not str(found).isdecimal() or int(found) > FORMAT:
            raise FieldlabError(
                f"{path} has journal format {found}; this program knows {FORMAT}: install a newer Fieldlab"
            )
        old = int(found)
    (mode,) = db.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise FieldlabError(f"{path}: its file system takes no write-ahead log; move the data folder to a local disk")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA wal_autocheckpoint=2000")
    db.execute("PRAGMA journal_size_limit=67108864")
    db.execute("PRAGMA cache_size=-4096")
    db.execute("PRAGMA secure_delete=OFF")  # some distributions turn it on: every deleted record would be written again
    if old < FORMAT:
        migrate(db, path, old, FORMAT)
    db.executescript(TABLES)
    db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (str(FORMAT),))
    db.execute("INSERT OR IGNORE INTO meta VALUES ('created', ?)", (str(time.time_ns()),))
    db.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", (secrets.token_hex(8),))


class JournalDamagedError(sqlite3.DatabaseError):
    """The file is a database, and not whole: what SQLite calls corrupt."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def check(db: sqlite3.Connection) -> None:
    """Look at every page: a second for each gigabyte or so.

    Raises:
        sqlite3.DatabaseError: if a page is damaged.
    """
    (words,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if words != "ok":
        raise JournalDamagedError(words)


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
    db.execute("PRAGMA query_only=ON")
    return db
