"""Decides each point's identity before it is committed, and counts what the sources gave.

A point is identified by signal and time (README.md, "Identity"). The state is a fold over the journal.
"""

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldlab.model import Batch
from fieldlab.model.status import is_bad
from ingest.journal.format import Extras, Messages

WINDOW = 16_384  # messages remembered a session; ids repeat only after 65,535
_NEVER = np.iinfo(np.int64).min
_COLUMNS = ("received", "committed", "bad", "duplicate", "rejected", "overflow", "moved")


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """Which acknowledged messages a batch came from, so that a redelivered one is known again after a crash.

    Attributes:
        session: the broker session, unique in the agent.
        ids: message ids, (m,) u16.
        hashes: a 64-bit hash of topic and payload of each message, (m,) u64.
        redelivered: the broker's DUP flag of each message, (m,).
        first_row: the row of the batch at which each message starts, ascending, (m,) u32.
    """

    session: str
    ids: NDArray[np.uint16]
    hashes: NDArray[np.uint64]
    redelivered: NDArray[np.bool_]
    first_row: NDArray[np.uint32]


class _Window:
    """The last messages of one session: hash and age by message id."""

    def __init__(self) -> None:
        self.hash = np.zeros(65_536, np.uint64)
        self.age = np.full(65_536, -(2**62), np.int64)
        self.count = 0

    def known(self, messages: Delivery) -> NDArray[np.bool_]:
        """Which redelivered messages were committed before."""
        recent = self.age[messages.ids] > self.count - WINDOW
        known: NDArray[np.bool_] = messages.redelivered & recent & (self.hash[messages.ids] == messages.hashes)
        return known

    def add(self, messages: Messages) -> None:
        self.hash[messages.ids] = messages.hashes
        self.age[messages.ids] = np.arange(self.count, self.count + len(messages.ids))
        self.count += len(messages.ids)


class Identity:
    """Newest time, value and status of each signal, the window of messages, and the counts of each signal."""

    def __init__(self) -> None:
        self._time = np.empty(0, np.int64)  # as stored, after moving on
        self._given = np.empty(0, np.int64)  # as the machine gave it
        self._print = np.empty(0, np.uint64)
        self._windows: dict[str, _Window] = {}
        self.counts = np.zeros((len(_COLUMNS), 0), np.int64)

    def column(self, name: str) -> NDArray[np.int64]:
        """Counts a signal: received, committed, bad, duplicate, rejected, overflow or moved, (signals,)."""
        found: NDArray[np.int64] = self.counts[_COLUMNS.index(name)]
        return found

    def decide(
        self, batch: Batch, delivery: Delivery | None = None, overflow: dict[int, int] | None = None
    ) -> tuple[Batch, Extras]:
        """What to append of `batch`, and what to record with it. Changes the state: append it, or rebuild."""
        self._grow(int(batch.signal.max(initial=0)), max(overflow or (), default=0))
        size = self.counts.shape[1]
        received = np.bincount(batch.signal, minlength=size)
        messages: tuple[Messages, ...] = ()
        if delivery is not None:
            batch, messages = self._refuse_redelivered(batch, delivery)
        batch, moved_row, moved_by = self._separate(batch)
        duplicate = received - np.bincount(batch.signal, minlength=size)
        lost = np.zeros(size, np.int64)
        for signal, count in (overflow or {}).items():
            lost[signal] += count
        noted = np.flatnonzero(duplicate | lost)
        counts = np.zeros((len(noted), 4), np.uint32)
        counts[:, 0], counts[:, 1], counts[:, 3] = noted, duplicate[noted], lost[noted]
        extras = Extras(moved_row, moved_by, counts, messages)
        self._count(batch, extras)
        return batch, extras

    def replay(self, batch: Batch, extras: Extras) -> None:
        """Fold what the journal holds: the same state as after `decide`."""
        signals = extras.counts[:, 0]
        self._grow(int(batch.signal.max(initial=0)), int(signals.max(initial=0)))
        for messages in extras.messages:
            self._windows.setdefault(messages.session, _Window()).add(messages)
        given = batch.time.copy()
        given[extras.moved_row] -= extras.moved_by
        prints = _fingerprints(batch)
        order = np.lexsort((np.arange(len(batch)), given, batch.signal))
        newest = order[np.append(np.diff(batch.signal[order].astype(np.int64)) != 0, True)] if len(order) else order
        newest = newest[given[newest] >= self._given[batch.signal[newest]]]
        signal = batch.signal[newest]
        self._time[signal], self._given[signal], self._print[signal] = batch.time[newest], given[newest], prints[newest]
        self._count(batch, extras)

    def _count(self, batch: Batch, extras: Extras) -> None:
        size = self.counts.shape[1]
        committed = np.bincount(batch.signal, minlength=size)
        received, total, bad, duplicate, rejected, overflow, moved = self.counts
        total += committed
        received += committed
        bad += np.bincount(batch.signal[is_bad(batch.status)], minlength=size)
        moved += np.bincount(batch.signal[extras.moved_row], minlength=size)
        signals, repeated, refused, lost = extras.counts.T.astype(np.int64)
        np.add.at(received, signals, repeated + refused)
        np.add.at(duplicate, signals, repeated)
        np.add.at(rejected, signals, refused)
        np.add.at(overflow, signals, lost)

    def _refuse_redelivered(self, batch: Batch, delivery: Delivery) -> tuple[Batch, tuple[Messages, ...]]:
        window = self._windows.setdefault(delivery.session, _Window())
        known = window.known(delivery)
        new = Messages(delivery.session, delivery.ids[~known], delivery.hashes[~known])
        window.add(new)
        if known.any():
            ends = np.append(delivery.first_row[1:], len(batch)).astype(np.int64)
            message_of_row = np.repeat(np.arange(len(known)), ends - delivery.first_row)
            batch = batch.take(~known[message_of_row])
        return batch, (new,) if len(new.ids) else ()

    def _separate(self, batch: Batch) -> tuple[Batch, NDArray[np.uint32], NDArray[np.uint32]]:
        """Drop exact repeats, and move on times that two different readings share."""
        none = np.empty(0, np.uint32)
        if len(batch) == 0:
            return batch, none, none
        prints = _fingerprints(batch)
        order = np.argsort(batch.signal, kind="stable")
        signal, time = batch.signal[order], batch.time[order]
        first = np.append(True, signal[1:] != signal[:-1])
        before = np.where(first, self._given[signal], np.append(_NEVER, time[:-1]))
        newest = self._time[signal[first]]
        if (time > before).all() and (time[first] > newest).all():
            last = order[np.append(first[1:], True)]
            self._time[batch.signal[last]] = self._given[batch.signal[last]] = batch.time[last]
            self._print[batch.signal[last]] = prints[last]
            return batch, none, none
        return self._separate_slowly(batch, prints, order)

    def _separate_slowly(
        self, batch: Batch, prints: NDArray[np.uint64], order: NDArray[np.intp]
    ) -> tuple[Batch, NDArray[np.uint32], NDArray[np.uint32]]:
        stored = batch.time.copy()
        keep = np.ones(len(batch), np.bool_)
        for row in order.tolist():
            signal, given = int(batch.signal[row]), int(batch.time[row])
            if given < self._given[signal]:
                continue  # out of order: kept at its own time
            if given == self._given[signal] and prints[row] == self._print[signal]:
                keep[row] = False
                continue
            stored[row] = max(given, int(self._time[signal]) + 1) if given <= self._time[signal] else given
            self._remember(signal, int(stored[row]), given, prints[row])
        moved = (stored - batch.time)[keep]
        kept = msgspec.structs.replace(batch, time=stored).take(keep)
        row_moved = np.flatnonzero(moved)
        return kept, row_moved.astype(np.uint32), moved[row_moved].astype(np.uint32)

    def _remember(self, signal: int, time: int, given: int, fingerprint: np.uint64) -> None:
        self._time[signal], self._given[signal], self._print[signal] = time, given, fingerprint

    def _grow(self, *indices: int) -> None:
        size = max(indices) + 1
        extra = size - len(self._time)
        if extra <= 0:
            return
        extra += size // 2
        self._time = np.append(self._time, np.full(extra, _NEVER))
        self._given = np.append(self._given, np.full(extra, _NEVER))
        self._print = np.append(self._print, np.zeros(extra, np.uint64))
        self.counts = np.hstack([self.counts, np.zeros((len(_COLUMNS), extra), np.int64)])

    def snapshot(self) -> bytes:
        """The state as bytes."""
        windows = {
            name: (
                w.count,
                (ids := np.flatnonzero(w.age > w.count - WINDOW)).tobytes(),
                w.hash[ids].tobytes(),
                w.age[ids].tobytes(),
            )
            for name, w in self._windows.items()
        }
        arrays = (self._time.tobytes(), self._given.tobytes(), self._print.tobytes(), self.counts.tobytes())
        return msgspec.msgpack.encode({"version": 1, "arrays": arrays, "windows": windows})

    @classmethod
    def restore(cls, data: bytes) -> "Identity":
        """The state from its bytes.

        Raises:
            ValueError: if they are of an unknown version.
        """
        found = msgspec.msgpack.decode(data)
        if found.get("version") != 1:
            raise ValueError(f"identity state of version {found.get('version')}; this program reads version 1")
        new = cls()
        time, given, prints, counts = found["arrays"]
        new._time = np.frombuffer(time, np.int64).copy()
        new._given = np.frombuffer(given, np.int64).copy()
        new._print = np.frombuffer(prints, np.uint64).copy()
        new.counts = np.frombuffer(counts, np.int64).reshape(len(_COLUMNS), -1).copy()
        for name, (count, ids, hashes, ages) in found["windows"].items():
            window = new._windows[name] = _Window()
            rows = np.frombuffer(ids, np.int64)
            window.count = count
            window.hash[rows] = np.frombuffer(hashes, np.uint64)
            window.age[rows] = np.frombuffer(ages, np.int64)
        return new


def _fingerprints(batch: Batch) -> NDArray[np.uint64]:
    """64 bits of value and status of each reading; equal readings have equal ones."""
    prints = np.where(np.isnan(batch.value), 0.0, batch.value).view(np.uint64)
    prints = prints ^ (batch.status.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    for row, text in zip(batch.text_row.tolist(), batch.text, strict=True):
        prints[row] ^= int.from_bytes(
            hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little"
        )
    prints[batch.integer_row] ^= batch.integer.view(np.uint64)
    return prints
