"""Events on their way to the journal, on a thread of their own: their times are decided, then they are kept."""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

import structlog

from edge.sources.base import Sink
from edge.sources.opcua.counters import Counters
from edge.sources.opcua.event_memory import EventMemory, Seen
from fieldlab.model import MachineEvent

log = structlog.get_logger()

_AGAIN: Final = 1.0  # s until a disk that refuses is tried again
_LAST_COMMITS: Final = 0.5  # s that an ending source waits for the journal


class EventWriter:
    """Writes each event once."""

    def __init__(self, name: str, path: Path, index: int, sink: Sink, counters: Counters) -> None:
        self._name = name
        self._path = path
        self._index = index
        self._sink = sink
        self._counters = counters
        self._memory: EventMemory | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-events")
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._under_way: dict[bytes, Future[None]] = {}
        self._kept: list[bytes] = []

    def keep(self, events: Sequence[Seen]) -> "Future[None]":
        """Write those that are new; done when all of them, new or not, are on disk."""
        return self._submit(lambda memory: self._write(memory, events))

    def end_refresh(self, scope: str, current: Iterable[tuple[str, str]], at: int, event_id: str) -> "Future[None]":
        """See `EventMemory.end_refresh`; the rows are written like events."""

        def work(memory: EventMemory) -> "list[Future[None]]":
            rows = memory.end_refresh(scope, current, at, event_id)
            self._counters.conditions_ended += len(rows)
            return self._write(memory, [Seen(row, scope) for row in rows])

        return self._submit(work)

    def close(self) -> None:
        """Note what the journal has by now, and end the thread."""
        with self._lock:
            waiting = list(self._under_way.values())
        if waiting and self._memory is not None:
            wait(waiting, timeout=_LAST_COMMITS)
        self._closing.set()
        self._thread.submit(self._end)
        self._thread.shutdown(wait=True)

    def _submit(self, work: "Callable[[EventMemory], list[Future[None]]]") -> "Future[None]":
        done: Future[None] = Future()
        self._thread.submit(self._run, work, done)
        return done

    def _run(self, work: "Callable[[EventMemory], list[Future[None]]]", done: "Future[None]") -> None:
        while True:
            try:
                if self._memory is None:
                    self._memory = EventMemory(self._path, self._index)
                _join(work(self._memory), done)
            except (sqlite3.Error, OSError) as e:
                log.exception("opcua_events_not_kept", source=self._name, file=str(self._path))
                if self._closing.wait(_AGAIN):
                    done.set_exception(e)
                    return
            except Exception as e:
                log.exception("opcua_events_not_kept", source=self._name)
                done.set_exception(e)
                return
            else:
                return

    def _write(self, memory: EventMemory, events: Sequence[Seen]) -> "list[Future[None]]":
        with self._lock:
            kept, self._kept = self._kept, []
        try:
            decided = memory.decide(events, kept)
        except sqlite3.Error:
            with self._lock:
                self._kept += kept
            raise
        new: dict[bytes, MachineEvent] = {}
        waiting = []
        for one in decided:
            with self._lock:
                already = self._under_way.get(one.digest)
            if one.kept or already is not None or one.digest in new:
                self._counters.events_known += 1
                if already is not None:
                    waiting.append(already)
            else:
                new[one.digest] = one.row
        if new:
            self._counters.events += len(new)
            written = self._sink.write(list(new.values()))
            with self._lock:
                self._under_way.update(dict.fromkeys(new, written))
            written.add_done_callback(lambda future: self._done(list(new), future))
            waiting.append(written)
        return waiting

    def _done(self, digests: list[bytes], future: "Future[None]") -> None:
        with self._lock:
            for digest in digests:
                self._under_way.pop(digest, None)
            if not future.cancelled() and future.exception() is None:
                self._kept += digests

    def _end(self) -> None:
        if self._memory is None:
            return
        with self._lock:
            kept, self._kept = self._kept, []
        with contextlib.suppress(sqlite3.Error):  # they are then written once more, which changes nothing
            self._memory.note_kept(kept)
        self._memory.close()


def _join(futures: "Sequence[Future[None]]", done: "Future[None]") -> None:
    """`done` when all are, failed if one is."""
    left = len(futures)
    if not left:
        done.set_result(None)
        return
    lock = threading.Lock()

    def one(future: "Future[None]") -> None:
        nonlocal left
        with lock:
            if done.done():
                return
            error = future.exception() if not future.cancelled() else RuntimeError("cancelled")
            if error is not None:
                done.set_exception(error)
                return
            left -= 1
            if not left:
                done.set_result(None)

    for future in futures:
        future.add_done_callback(one)


def joined(futures: "Sequence[Future[None]]") -> "Future[None]":
    """A future that is done when all are; it fails if one does."""
    if len(futures) == 1:
        return futures[0]
    done: Future[None] = Future()
    _join(futures, done)
    return done
