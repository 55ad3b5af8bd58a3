"""What must outlive the process: birth certificates, and messages that wait. A small SQLite file.

Data that the broker kept for us while we were away has aliases in place of names: without the birth certificate that
came before them they would mean nothing.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from edge.sources.mqtt.sparkplug.nodes import Held, NodeRecord

_log = structlog.get_logger()
_VERSION = 1
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS node (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
PRAGMA user_version = {_VERSION};
"""


class Change(msgspec.Struct, frozen=True):
    """What a checkpoint changes.

    Attributes:
        nodes: edge nodes as they are now.
        held: messages that wait since.
        released: numbers of messages that wait no more.
        everything: whether `nodes` and `held` are all there is.
    """

    nodes: Sequence[NodeRecord]
    held: Sequence[Held]
    released: Sequence[int]
    everything: bool = False


class Memory:
    """The file. It is opened at the first use, and used by one thread.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None

    def load(self) -> tuple[list[NodeRecord], list[Held]]:
        """What is kept. A file that cannot be read is set aside: the edge nodes are asked for their births again."""
        try:
            return self._load()
        except (sqlite3.DatabaseError, msgspec.MsgspecError, ValueError) as e:
            self.close()
            aside = self._path.with_suffix(".damaged")
            _log.error("sparkplug_memory_damaged", file=str(self._path), set_aside=str(aside), error=str(e))
            for suffix in ("", "-wal", "-shm"):
                damaged = self._path.with_name(self._path.name + suffix)
                if damaged.exists():
                    damaged.replace(aside.with_name(aside.name + suffix))
            return [], []

    def _load(self) -> tuple[list[NodeRecord], list[Held]]:
        database = self._open()
        nodes = [msgspec.msgpack.decode(body, type=NodeRecord) for (body,) in database.execute("SELECT body FROM node")]
        rows = database.execute("SELECT body FROM held ORDER BY number")
        return nodes, [msgspec.msgpack.decode(body, type=Held) for (body,) in rows]

    def save(self, change: Change) -> None:
        """Keep a change, fsynced when it returns.

        Raises:
            sqlite3.Error: if the disk refuses; nothing was changed then.
        """
        encode = msgspec.msgpack.encode
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            if change.everything:
                database.execute("DELETE FROM node")
                database.execute("DELETE FROM held")
            nodes = [(f"{each.group}/{each.node}", encode(each)) for each in change.nodes]
            database.executemany("INSERT OR REPLACE INTO node VALUES (?, ?)", nodes)
            held = [(each.number, encode(each)) for each in change.held]
            database.executemany("INSERT OR REPLACE INTO held VALUES (?, ?)", held)
            database.executemany("DELETE FROM held WHERE number = ?", [(each,) for each in change.released])

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._database = database
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise ValueError(f"version {version}; this program reads version {_VERSION}")
            database.executescript(_SCHEMA)
        return self._database

    def close(self) -> None:
        """Let go of the file; it is opened again at the next use."""
        if self._database is not None:
            self._database.close()
            self._database = None
