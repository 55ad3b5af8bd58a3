"""Counts again, from the disk alone, what became of the readings of each signal, and sees whether it adds up."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldlab.model import Batch, Record, RecordKind
from ingest.forwarder import Counts, Takes, backfill_lane
from ingest.journal import Journal
from ingest.journal import format as fmt
from ingest.journal.database import restore
from ingest.journal.identity import Identity

Column = NDArray[np.int64]
RECEIVED = ("received", "committed", "duplicate", "rejected", "bad", "overflow")


class StoreAudit(msgspec.Struct, frozen=True, eq=False):
    """What became of the readings for one store, (signals,) each.

    committed = before + stored + dead + dropped + left out + waiting, for each signal.

    Attributes:
        name: the store.
        before: committed before there was this store, and no longer in the journal then.
        stored: safely kept by it.
        dead: refused by it for good.
        dropped: not given to it, for want of room in the journal.
        left_out: of signals that it is configured not to take.
        waiting: in the journal, behind its cursors.
    """

    name: str
    before: Column
    stored: Column
    dead: Column
    dropped: Column
    left_out: Column
    waiting: Column


class Audit(msgspec.Struct, frozen=True, eq=False):
    """The counts at one position of the journal.

    Attributes:
        position: the newest record.
        counts: by name (`RECEIVED`), (signals,) each. received = committed + duplicate + rejected.
        stores: what became of them.
        damaged: records that could not be read.
    """

    position: int
    counts: dict[str, Column]
    stores: tuple[StoreAudit, ...]
    damaged: int

    def broken(self) -> dict[int, list[str]]:
        """What does not add up, in words, by signal; empty if everything does."""
        found: dict[int, list[str]] = {}
        c = self.counts
        given = c["committed"] + c["duplicate"] + c["rejected"]
        for signal in np.flatnonzero(c["received"] != given).tolist():
            words = f"received {c['received'][signal]} is not committed + duplicate + rejected = {given[signal]}"
            found.setdefault(signal, []).append(words)
        for s in self.stores:
            became = s.before + s.stored + s.dead + s.dropped + s.left_out + s.waiting
            for signal in np.flatnonzero(c["committed"] != became).tolist():
                words = (
                    f"{s.name}: committed {c['committed'][signal]} is not stored + dead + dropped + waiting"
                    f"{' + left out' if s.left_out[signal] else ''}"
                    f"{' + before' if s.before[signal] else ''} = {became[signal]}"
                )
                found.setdefault(signal, []).append(words)
        return found


def audit(journal: Journal, stores: Sequence[str], takes: Mapping[str, Takes] | None = None) -> Audit:
    """Count from the newest checkpoints on, at one moment of the journal, also while it is being written.

    Reads every record behind the slowest cursor: seconds, where a store was away for long.

    Args:
        journal: whose readings.
        stores: names of the stores.
        takes: which signals those take that do not take all.
    """
    with journal.snapshot() as db:
        return _count(db, len(journal.signals), {name: (takes or {}).get(name) for name in stores})


class _Lane:
    """One cursor: its counts up to there, and what is behind it."""

    def __init__(self, db: sqlite3.Connection, name: str, kind: RecordKind, takes: Takes | None) -> None:
        query = "SELECT position, keep_from, state FROM consumer WHERE name = ?"
        row = db.execute(query, (name,)).fetchone() or (0, 0, None)
        self.position, self.start = int(row[0]), int(row[1])
        state: bytes | None = row[2]
        self.known = state is not None
        self.kind = kind
        self.counts = Counts(state, takes)
        self.waiting = np.zeros(0, np.int64)

    def take(self, position: int, record: Record, batch: Batch) -> None:
        """Count a record of its kind."""
        if record.kind != self.kind:
            return
        if position > self.position:
            self.waiting = _sum(self.waiting, np.bincount(batch.signal).astype(np.int64))
        elif position > self.start:
            self.counts.add([record])


def _count(db: sqlite3.Connection, signals: int, stores: Mapping[str, Takes | None]) -> Audit:
    identity, folded = restore(db)
    lanes = {
        name: (_Lane(db, name, RecordKind.READINGS, takes), _Lane(db, backfill_lane(name), RecordKind.BACKFILL, takes))
        for name, takes in stores.items()
    }
    each = [lane for pair in lanes.values() for lane in pair]
    (newest,) = db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'record'").fetchone()
    damaged = 0
    for position, blob in _records(db, min([folded, *(lane.start for lane in each)])):
        try:
            record = fmt.decode(position, 0, blob)
            extras = fmt.decode_extras(blob) if position > folded else None
        except fmt.DamagedRecordError:
            damaged += 1
            continue
        assert record.batch is not None
        if extras is not None:
            identity.replay(record.batch, extras)
        for lane in each:
            lane.take(position, record, record.batch)
    counts = _totals(identity, signals)
    return Audit(
        newest,
        counts,
        tuple(_store(name, *pair, counts["committed"], signals) for name, pair in lanes.items()),
        damaged,
    )


def _records(db: sqlite3.Connection, after: int) -> Iterator[tuple[int, bytes]]:
    query = "SELECT position, data FROM record WHERE position > ? AND kind IN (?, ?) ORDER BY position"
    yield from db.execute(query, (after, int(RecordKind.READINGS), int(RecordKind.BACKFILL)))


def _totals(identity: Identity, signals: int) -> dict[str, Column]:
    totals = identity.totals(signals)
    return {name: totals[name] for name in RECEIVED}


def _store(name: str, live: _Lane, past: _Lane, committed: Column, signals: int) -> StoreAudit:
    def both(column: str) -> Column:
        return _wide(getattr(live.counts, column), signals) + _wide(getattr(past.counts, column), signals)

    stored, dead, dropped, left_out = both("stored"), both("dead"), both("dropped"), both("left_out")
    waiting = _wide(live.waiting, signals) + _wide(past.waiting, signals)
    # Until the first checkpoint nothing is trimmed: what is not in the journal was committed before this store.
    before = both("before") if live.known else committed - stored - dead - dropped - left_out - waiting
    return StoreAudit(name, before, stored, dead, dropped, left_out, waiting)


def _sum(one: Column, other: Column) -> Column:
    size = max(len(one), len(other))
    return _wide(one, size) + _wide(other, size)


def _wide(column: Column, size: int) -> Column:
    wide = np.zeros(size, np.int64)
    wide[: len(column)] = column[:size]
    return wide
