"""The ledger: per signal, what was received, committed, stored and lost. The proof that nothing is lost."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldlab.model import Guarantee, LedgerRow, RecordKind
from ingest.forwarder import Forwarder
from ingest.journal import Journal

_COLUMNS = ("received", "committed", "stored", "bad", "overflow", "duplicate", "rejected", "dead", "dropped")
_OF_STORE = ("stored", "dead", "dropped")
_UNVERIFIABLE: dict[Guarantee, str] = {
    "from-receipt": "unverifiable before receipt",
    "sampled": "unverifiable between polls",
}


def loss(guarantee: Guarantee, lost: int, gaps: int = 0) -> str:
    """What can be said of a signal's losses, in words; never more than its guarantee allows.

    Args:
        guarantee: the weakest that it has had.
        lost: readings known to be lost.
        gaps: intervals in which more may be missing: all but the closed ones.
    """
    beyond = _UNVERIFIABLE.get(guarantee, "")
    left = f"{gaps} gap{'s' if gaps > 1 else ''} not closed" if gaps else ""
    counted = f"{lost} {'known ' if beyond or left else ''}lost" if lost or not beyond else ""
    return ", ".join(part for part in (counted, left, beyond) if part)


def takes_readings(lane: Forwarder) -> bool:
    """Whether a store keeps readings at all; one that takes only findings and parts has no share in the ledger."""
    return RecordKind.READINGS in lane.store.kinds


class Ledger:
    """Totals since the journal began.

    received = committed + duplicate + rejected; for each store, committed = stored + dead + dropped + left out +
    waiting, but for what was committed before there was the store (`before`).

    Args:
        journal: whose readings.
        stores: the lanes of each store; `stored`, `dead` and `dropped` of the totals are those of the first that
            takes readings.
        agent: the tag `agent` of the rows.
    """

    def __init__(self, journal: Journal, stores: Sequence[Sequence[Forwarder]], agent: str) -> None:
        self._journal = journal
        self._stores = [lanes for lanes in stores if takes_readings(lanes[0])]
        self._lanes = self._stores[0] if self._stores else ()
        self._agent = agent
        self._shown: NDArray[np.int64] = np.empty((len(_COLUMNS), 0), np.int64)

    def table(self) -> NDArray[np.int64]:
        """Counts by column (`_COLUMNS`) and signal, (9, signals)."""
        size = len(self._journal.signals)
        table = np.zeros((len(_COLUMNS), size), np.int64)
        # The store's counts first: what it has was committed before, so no row ever shows more stored than committed.
        for lane in self._lanes:
            for row, name in enumerate(_COLUMNS):
                if name in _OF_STORE:
                    column = getattr(lane.counts, name)[:size]
                    table[row, : len(column)] += column
        totals = self._journal.identity.totals(size)
        for row, name in enumerate(_COLUMNS):
            if name not in _OF_STORE:
                table[row] = totals[name]
        return table

    def totals(self) -> dict[str, int]:
        """The sums over all signals; `lost`: known to be lost before the journal, or dropped when it was full."""
        sums = dict(zip(_COLUMNS, self.table().sum(axis=1).tolist(), strict=True))
        return {**sums, "lost": sums["overflow"] + sums["dropped"]}

    def stores(self) -> list[dict[str, Any]]:
        """The sums of each store: name, before, stored, dead, dropped, left out, and waiting in the journal for it."""
        found = []
        for lanes in self._stores:
            sums = {
                name: sum(int(getattr(lane.counts, name).sum()) for lane in lanes)
                for name in ("before", *_OF_STORE, "left_out")
            }
            waiting = sum(lane.status().lag_readings for lane in lanes)
            found.append({"name": lanes[0].store.name, **sums, "waiting": waiting})
        return found

    def signals(self) -> list[dict[str, int | str]]:
        """The counts of each signal that has any."""
        table = self.table()
        signals = self._journal.signals
        return [
            {
                "index": i,
                "signal": signals[i].short,
                "path": signals[i].path,
                **dict(zip(_COLUMNS, table[:, i].tolist(), strict=True)),
            }
            for i in np.flatnonzero(table.any(axis=0)).tolist()
        ]

    def rows(self, now: int) -> list[LedgerRow]:
        """The rows of the signals whose counts changed since the last call."""
        table = self.table()
        before = np.zeros_like(table)
        before[:, : self._shown.shape[1]] = self._shown
        changed = np.flatnonzero((table != before).any(axis=0)).tolist()
        self._shown = table
        found = []
        for i in changed:
            counts = dict(zip(_COLUMNS, table[:, i].tolist(), strict=True))
            counts.pop("rejected")
            counts.pop("dropped")
            found.append(LedgerRow(time=now, key=self._journal.signals[i], agent=self._agent, **counts))
        return found
