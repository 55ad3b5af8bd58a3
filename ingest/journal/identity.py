"""Decides each point's identity before it is committed, and counts what the sources gave.

A point is identified by signal and time (README.md, "Identity"). The state is a fold over the journal.
"""

import hashlib
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence

import google_crc32c
import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldlab.model import Batch
from fieldlab.model.status import BAD_NO_COMMUNICATION, is_bad
from ingest.journal.format import Extras, Messages

WINDOW = 16_384  # messages remembered a session; ids repeat only after 65,535
_NEVER = int(np.iinfo(np.int64).min)
_LAST = int(np.iinfo(np.int64).max)
_NO_ROWS: NDArray[np.uint32] = np.empty(0, np.uint32)
_NO_READINGS = Batch.of([], [], [])
_COLUMNS = ("received", "committed", "bad", "duplicate", "rejected", "overflow", "moved")


_Point = tuple[int, int]  # the time that a reading was given, and its fingerprint


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


class Part(msgspec.Struct, frozen=True, eq=False):
    """The rows `start` to `stop` of a batch, and the messages that they came from."""

    delivery: Delivery
    start: int
    stop: int


class _Window:
    """The last messages of one session: hash and age by message id."""

    def __init__(self) -> None:
        self.hash = np.zeros(65_536, np.uint64)
        self.age = np.full(65_536, -(2**62), np.int64)
        self.count = 0

    def add(self, ids: NDArray[np.uint16], hashes: NDArray[np.uint64]) -> None:
        self.hash[ids] = hashes
        self.age[ids] = np.arange(self.count, self.count + len(ids))
        self.count += len(ids)

    def sift(self, messages: Delivery) -> NDArray[np.bool_]:
        """Which messages are new; adds them. Only a redelivered one can be known: ids are used again."""
        new = np.ones(len(messages.ids), np.bool_)
        if not messages.redelivered.any():
            self.add(messages.ids, messages.hashes)
            return new
        for i in range(len(new)):  # one by one: a message and its redelivery may come together
            one = slice(i, i + 1)
            number = messages.ids[i]
            known = self.age[number] >= self.count - WINDOW and self.hash[number] == messages.hashes[i]
            if messages.redelivered[i] and known:
                new[i] = False
            else:
                self.add(messages.ids[one], messages.hashes[one])
        return new


class Identity:
    """Newest time, value and status of each signal, the window of messages, and the counts of each signal."""

    def __init__(self) -> None:
        self._time = np.empty(0, np.int64)  # as stored, after moving on
        self._given = np.empty(0, np.int64)  # as the machine gave it
        self._print = np.empty(0, np.uint64)
        self._size = 0  # signals in use; the arrays are longer
        self._windows: dict[str, _Window] = {}
        # Signals whose newest is a status of ours → time and print of the reading before it, if there is one.
        self._held: dict[int, _Point | None] = {}
        self._lock = threading.Lock()
        self.counts = np.zeros((len(_COLUMNS), 0), np.int64)

    def column(self, name: str) -> NDArray[np.int64]:
        """Counts a signal: received, committed, bad, duplicate, rejected, overflow or moved, (signals,).

        Use `totals` for columns that must agree with each other.
        """
        found: NDArray[np.int64] = self.counts[_COLUMNS.index(name)]
        return found

    def totals(self, size: int) -> dict[str, NDArray[np.int64]]:
        """A copy of all columns of the first `size` signals, taken between two changes, so that they add up."""
        with self._lock:
            counts = self.counts[:, :size].copy()
        padded = np.zeros((len(_COLUMNS), size), np.int64)
        padded[:, : counts.shape[1]] = counts
        return dict(zip(_COLUMNS, padded, strict=True))

    def newest(self, signals: Iterable[int]) -> dict[int, int]:
        """The time of the newest reading, ns, of each of `signals` that has one."""
        with self._lock:
            known = ((signal, int(self._time[signal])) for signal in signals if 0 <= signal < self._size)
            return {signal: time for signal, time in known if time != _NEVER}

    def decide(
        self, batch: Batch, parts: Sequence[Part] = (), overflow: Mapping[int, int] | None = None
    ) -> tuple[Batch, Extras]:
        """What to append of `batch`, and what to record with it. Changes the state: append it, or rebuild.

        Args:
            batch: raw readings.
            parts: which of its rows came from which messages.
            overflow: signal → readings known to be lost before the agent.
        """
        lost = {signal: count for signal, count in (overflow or {}).items() if count > 0}
        with self._lock:
            self._grow(int(batch.signal.max(initial=0)) if len(batch) else -1, max(lost, default=-1))
            keep, messages = self._refuse_redelivered(len(batch), parts)
            dropped = _NO_ROWS
            if keep is not None:
                dropped = batch.signal[~keep]
                batch = batch.take(keep)
            batch, repeated, moved_row, moved_by = self._separate(batch)
            extras = Extras(moved_row, moved_by, _noted(np.concatenate([dropped, repeated]), lost), messages)
            self._count(batch, extras)
        return batch, extras

    def admit(self, delivery: Delivery | None, counts: Sequence[Mapping[int, int]]) -> tuple[NDArray[np.bool_], Extras]:
        """Which dead letters to keep, and what to record with them. Changes the state, as `decide`.

        Args:
            delivery: which messages they came from; `first_row` counts letters.
            counts: signal → readings of each letter, as far as is known: rejected, or duplicates if it is not kept.
        """
        n = len(counts)
        with self._lock:
            self._grow(max((signal for each in counts for signal in each), default=-1))
            keep, messages = self._refuse_redelivered(n, [] if delivery is None else [Part(delivery, 0, n)])
            keep = np.ones(n, np.bool_) if keep is None else keep
            found: dict[int, list[int]] = {}
            for each, new in zip(counts, keep.tolist(), strict=True):
                for signal, count in each.items():
                    found.setdefault(signal, [signal, 0, 0, 0])[2 if new else 1] += count
            noted = np.array([found[signal] for signal in sorted(found)], np.uint32).reshape(-1, 4)
            extras = Extras(counts=noted, messages=messages)
            self._count(_NO_READINGS, extras)
        return keep, extras

    def replay(self, batch: Batch, extras: Extras) -> None:
        """Fold what the journal holds: the same state as after `decide`."""
        with self._lock:
            self._grow(
                int(batch.signal.max()) if len(batch) else -1,
                int(extras.counts[:, 0].max()) if len(extras.counts) else -1,
            )
            for messages in extras.messages:
                self._window(messages.session).add(messages.ids, messages.hashes)
            if len(batch):
                self._follow(batch, extras)
            self._count(batch, extras)

    def _follow(self, batch: Batch, extras: Extras) -> None:
        """The newest reading of each signal, from readings that are separate already."""
        given = batch.time
        if len(extras.moved_row):
            given = given.copy()
            given[extras.moved_row] -= extras.moved_by
        prints = _fingerprints(batch)
        self._hold(batch, given, prints)
        order = np.lexsort((given, batch.signal))  # stable: of equal times the later row is the newer
        newest = order[np.append(np.diff(batch.signal[order].astype(np.int64)) != 0, True)]
        newest = newest[given[newest] >= self._given[batch.signal[newest]]]
        signal = batch.signal[newest]
        self._time[signal], self._given[signal] = batch.time[newest], given[newest]
        self._print[signal] = prints[newest]

    def _hold(self, batch: Batch, given: NDArray[np.int64], prints: NDArray[np.uint64]) -> None:
        """Follow the last reading of signals whose newest is BadNoCommunication, which no machine has sent."""
        silent = batch.status == np.uint32(BAD_NO_COMMUNICATION)
        if not self._held and not silent.any():
            return
        chosen = silent | np.isin(batch.signal, list(self._held))
        for signal in np.unique(batch.signal[chosen]).tolist():
            newest = (int(self._given[signal]), int(self._print[signal])) if self._time[signal] != _NEVER else None
            held = self._held.get(signal)
            for row in np.flatnonzero(batch.signal == signal).tolist():
                newest, held = _held(newest, held, (int(given[row]), int(prints[row])))
            if newest is not None and newest[1] == _SILENT:
                self._held[signal] = held
            else:
                self._held.pop(signal, None)

    def _count(self, batch: Batch, extras: Extras) -> None:
        received, committed, bad, duplicate, rejected, overflow, moved = self.counts
        if len(batch):
            signals = batch.signal.astype(np.intp)
            np.add.at(received, signals, 1)
            np.add.at(committed, signals, 1)
            if batch.status.any():
                np.add.at(bad, signals[is_bad(batch.status)], 1)
            if len(extras.moved_row):
                np.add.at(moved, signals[extras.moved_row], 1)
        if len(extras.counts):
            of, repeated, refused, lost = extras.counts.T.astype(np.int64)
            np.add.at(received, of, repeated + refused)
            np.add.at(duplicate, of, repeated)
            np.add.at(rejected, of, refused)
            np.add.at(overflow, of, lost)

    def _refuse_redelivered(
        self, rows: int, parts: Sequence[Part]
    ) -> tuple[NDArray[np.bool_] | None, tuple[Messages, ...]]:
        """A mask of the rows to keep (None: all), and the new messages by session."""
        keep: NDArray[np.bool_] | None = None
        new: dict[str, list[tuple[NDArray[np.uint16], NDArray[np.uint64]]]] = {}
        for part in parts:
            delivery = part.delivery
            if len(delivery.ids) == 0:
                continue
            fresh = self._window(delivery.session).sift(delivery)
            if fresh.any():
                new.setdefault(delivery.session, []).append((delivery.ids[fresh], delivery.hashes[fresh]))
            if not fresh.all():
                keep = np.ones(rows, np.bool_) if keep is None else keep
                within = np.arange(part.stop - part.start)
                message = np.searchsorted(delivery.first_row, within, side="right") - 1
                keep[part.start : part.stop] = np.where(message >= 0, fresh[message], True)
        return keep, tuple(
            Messages(session, np.concatenate([ids for ids, _ in lists]), np.concatenate([h for _, h in lists]))
            for session, lists in new.items()
        )

    def _window(self, session: str) -> _Window:
        """The window of a session; making one is dear."""
        found = self._windows.get(session)
        if found is None:
            found = self._windows[session] = _Window()
        return found

    def _separate(self, batch: Batch) -> tuple[Batch, NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
        """Drop exact repeats, and move on times that two different readings share.

        Returns:
            The readings to keep, the signal of each that was dropped, the rows that were moved, and by how many ns.
        """
        n = len(batch)
        if n == 0:
            return batch, _NO_ROWS, _NO_ROWS, _NO_ROWS
        prints = _fingerprints(batch)
        held = self._held.copy() if self._held else {}
        self._hold(batch, batch.time, prints)
        order = np.argsort(batch.signal, kind="stable")
        signal, time = batch.signal[order], batch.time[order]
        first = np.append(True, signal[1:] != signal[:-1])
        starts = np.flatnonzero(first)
        ends = np.append(starts[1:], n)
        before = np.append(_NEVER, time[:-1])
        before[starts] = self._time[signal[starts]]
        ascends = time > before
        plain = None if ascends.all() else np.logical_and.reduceat(ascends, starts)
        last = order[ends - 1] if plain is None else order[ends[plain] - 1]
        newest = batch.signal[last]
        self._time[newest] = self._given[newest] = batch.time[last]
        self._print[newest] = prints[last]
        if plain is None:
            return batch, _NO_ROWS, _NO_ROWS, _NO_ROWS
        return self._separate_slowly(batch, prints, order[np.repeat(~plain, ends - starts)], held)

    def _separate_slowly(
        self, batch: Batch, prints: NDArray[np.uint64], rows: NDArray[np.intp], held: "dict[int, _Point | None]"
    ) -> tuple[Batch, NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
        """The same, one by one, for the rows of the signals that need it."""
        dropped: list[int] = []
        moved: dict[int, int] = {}
        columns = (rows, batch.signal[rows], batch.time[rows], prints[rows])
        state: dict[int, tuple[int, int, int]] = {}
        for row, signal, given, mark in zip(*(column.tolist() for column in columns), strict=True):
            newest, as_given, newest_mark = state.get(signal) or (
                int(self._time[signal]),
                int(self._given[signal]),
                int(self._print[signal]),
            )
            before = held.get(signal)
            _, held[signal] = _held((as_given, newest_mark) if newest != _NEVER else None, before, (given, mark))
            if given < as_given:
                if newest_mark == _SILENT and before == (given, mark):
                    dropped.append(row)  # the machine tells it once more, now that it is heard again
                continue  # out of order: kept at its own time
            if given == as_given and mark == newest_mark and newest != _NEVER:
                dropped.append(row)
                continue
            stored = given if given > newest else min(newest + 1, _LAST)
            if stored != given:
                moved[row] = stored - given
            state[signal] = (stored, given, mark)
        for signal, (stored, given, mark) in state.items():
            self._time[signal], self._given[signal], self._print[signal] = stored, given, mark
        moved_row = np.array(sorted(moved), np.uint32)
        moved_by = np.array([moved[row] for row in moved_row.tolist()], np.uint32)
        if moved:
            time = batch.time.copy()
            time[moved_row] += moved_by
            batch = msgspec.structs.replace(batch, time=time)
        if not dropped:
            return batch, _NO_ROWS, moved_row, moved_by
        keep = np.ones(len(batch), np.bool_)
        keep[dropped] = False
        place = np.cumsum(keep) - 1
        return batch.take(keep), batch.signal[dropped], place[moved_row].astype(np.uint32), moved_by

    def _grow(self, *newest: int) -> None:
        self._size = max(self._size, max(newest) + 1)
        extra = self._size - len(self._time)
        if extra <= 0:
            return
        extra += self._size // 2
        self._time = np.append(self._time, np.full(extra, _NEVER))
        self._given = np.append(self._given, np.full(extra, _NEVER))
        self._print = np.append(self._print, np.zeros(extra, np.uint64))
        self.counts = np.hstack([self.counts, np.zeros((len(_COLUMNS), extra), np.int64)])

    def snapshot(self) -> bytes:
        """The state as bytes, with a CRC32C: a damaged state would be wrong counts, unseen."""
        windows = {
            name: (
                w.count,
                (ids := np.flatnonzero(w.age >= w.count - WINDOW)).tobytes(),
                w.hash[ids].tobytes(),
                w.age[ids].tobytes(),
            )
            for name, w in sorted(self._windows.items())
        }
        columns = (self._time, self._given, self._print, *self.counts)
        held = [(signal, *(known or ())) for signal, known in sorted(self._held.items())]
        arrays = [column[: self._size].tobytes() for column in columns]
        body = msgspec.msgpack.encode({"version": 1, "arrays": arrays, "windows": windows, "held": held})
        return struct.pack("<I", google_crc32c.value(body)) + body

    @classmethod
    def restore(cls, data: bytes) -> "Identity":
        """The state from its bytes.

        Raises:
            ValueError: if they are damaged, or of an unknown version.
        """
        if google_crc32c.value(data[4:]) != int.from_bytes(data[:4], "little"):
            raise ValueError("the CRC32C of the identity state differs")
        found = msgspec.msgpack.decode(data[4:])
        if found.get("version") != 1:
            raise ValueError(f"identity state of version {found.get('version')}; this program reads version 1")
        new = cls()
        time, given, prints, *counts = found["arrays"]
        new._time = np.frombuffer(time, np.int64).copy()
        new._given = np.frombuffer(given, np.int64).copy()
        new._print = np.frombuffer(prints, np.uint64).copy()
        new._size = len(new._time)
        new.counts = np.array([np.frombuffer(column, np.int64) for column in counts])
        for signal, *known in found.get("held", ()):  # absent before it was kept
            new._held[signal] = (known[0], known[1]) if known else None
        for name, (count, ids, hashes, ages) in found["windows"].items():
            window = new._windows[name] = _Window()
            rows = np.frombuffer(ids, np.int64)
            window.count = count
            window.hash[rows] = np.frombuffer(hashes, np.uint64)
            window.age[rows] = np.frombuffer(ages, np.int64)
        return new


def _held(newest: _Point | None, held: _Point | None, reading: _Point) -> tuple[_Point | None, _Point | None]:
    """The newest reading behind `reading`, and if that is a status of ours, the one before it; `held` is that now."""
    if newest is None or reading[0] >= newest[0]:
        return reading, held if newest is not None and newest[1] == _SILENT else newest
    if newest[1] == _SILENT and (held is None or reading[0] >= held[0]):
        return newest, reading
    return newest, held


def _noted(dropped: NDArray[np.uint32], lost: Mapping[int, int]) -> NDArray[np.uint32]:
    """Section 12 of the format: signal, duplicates, rejected and overflowed, of the signals that have any."""
    if len(dropped) == 0 and not lost:
        return np.empty((0, 4), np.uint32)
    signals, repeats = np.unique(dropped, return_counts=True)
    found = {signal: [signal, count, 0, 0] for signal, count in zip(signals.tolist(), repeats.tolist(), strict=True)}
    for signal, count in lost.items():
        found.setdefault(signal, [signal, 0, 0, 0])[3] = min(count, 2**32 - 1)
    return np.array([found[signal] for signal in sorted(found)], np.uint32)


def _silent_print() -> int:
    """The fingerprint of BadNoCommunication without a value."""
    return int(_fingerprints(Batch.of([0], [0], [np.nan], [BAD_NO_COMMUNICATION]))[0])


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


_SILENT = _silent_print()
