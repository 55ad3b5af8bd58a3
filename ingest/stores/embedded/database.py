"""Opens the DuckDB file and hands out cursors. One process at a time can open it: others ask the agent."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import structlog

from ingest.stores.base import StoreMisconfiguredError, StoreUnavailableError
from ingest.stores.embedded.config import EmbeddedConfig
from ingest.stores.embedded.schema import DDL, VERSION

_log = structlog.get_logger()

_LEAVES_NOTHING_USABLE = (duckdb.FatalException, duckdb.InternalException, duckdb.OutOfMemoryException)
_LOG = "8MB"  # of its log before a checkpoint: what is not yet in the file is in memory. Less makes the file larger


class Database:
    """One file, opened once. Every thread takes a cursor of its own.

    Raises:
        StoreMisconfiguredError: if another process has the file, or it is not ours, or damaged.
    """

    def __init__(self, path: Path, config: EmbeddedConfig) -> None:
        self.path = path
        self._config = config
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._closed = False
        self._readers = 0
        self._open()

    def _open(self) -> duckdb.DuckDBPyConnection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = duckdb.connect(
                str(self.path),
                config={
                    "threads": self._config.threads,
                    "memory_limit": f"{self._config.memory}B",
                    "checkpoint_threshold": _LOG,
                    "enable_external_access": False,  # a query reads this file and no other
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                    "preserve_insertion_order": False,
                },
            )
            connection.execute(DDL)
            found = connection.execute("SELECT version FROM fieldlab").fetchone()
        except (duckdb.Error, OSError) as e:
            advice = (
                "another process has it open; while an agent runs, ask the agent"
                if "lock" in str(e)
                else "if it is damaged, move it aside: the agent starts a new one"
            )
            raise StoreMisconfiguredError(f"{self.path} cannot be opened: {advice} ({e})") from e
        if found is None:
            connection.execute("INSERT INTO fieldlab VALUES (?)", [VERSION])
        elif found[0] != VERSION:
            connection.close()
            raise StoreMisconfiguredError(f"{self.path} has format {found[0]}; this Fieldlab reads format {VERSION}")
        self._connection = connection
        return connection

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection for one thread; close it after use.

        Raises:
            StoreUnavailableError: if the store is closed.
            StoreMisconfiguredError: if the file has to be opened again and cannot be.
        """
        with self._lock:
            return self._cursor()

    @contextlib.contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor for one query; the file stays open meanwhile.

        Raises:
            StoreUnavailableError: if the store is closed, or the query fails.
            StoreMisconfiguredError: as `cursor`.
        """
        with self._lock:
            cursor = self._cursor()
            self._readers += 1
        try:
            yield cursor
        except duckdb.Error as e:
            raise self.failed(e) from e
        finally:
            cursor.close()
            with self._lock:
                self._readers -= 1

    def failed(self, error: duckdb.Error) -> StoreUnavailableError:
        """The error to raise for `error`; after one that DuckDB does not survive, the file is opened again.

        What it had when its memory was full it keeps, so that the next write would fail like the last.
        """
        if isinstance(error, _LEAVES_NOTHING_USABLE):
            _log.error("embedded_store_reopens", file=str(self.path), error=str(error))
            with self._lock:
                self._drop()
        return StoreUnavailableError(f"{self.path}: {error}")

    def refresh(self) -> bool:
        """Close the file and open it again, in some 40 ms; False if somebody reads meanwhile, and nothing happens.

        While it is open, DuckDB keeps pieces of what it wrote until its memory is full, and then a checkpoint fails:
        version 2.0 after 4.5 million readings in writes of 2,000, with 48 MB.

        Raises:
            StoreMisconfiguredError: if it cannot be opened again; the next cursor tries once more.
        """
        with self._lock:
            if self._readers or self._closed:
                return False
            self._drop()
            self._open()
            return True

    def close(self) -> None:
        """Write everything into the file and release it."""
        with self._lock:
            self._closed = True
            self._drop()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        if self._closed:
            raise StoreUnavailableError(f"{self.path} is closed")
        return (self._connection or self._open()).cursor()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(duckdb.Error):  # somebody reads: it closes with the last cursor
                connection.close()
