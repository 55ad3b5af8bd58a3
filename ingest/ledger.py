"""The ledger: per signal, what was received, committed, stored and lost. The proof that nothing is lost."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fieldlab.model import LedgerRow
from ingest.forwarder import Forwarder
from ingest.journal import Journal

_COLUMNS = ("received", "committed", "stored", "bad", "overflow", "duplicate", "rejected", "dead", "dropped")
_OF_STORE = frozenset({"stored", "dead", "dropped"})


class Ledger:
    """Totals since the journal began. `lanes`: those of the first store, whose are `stored`, `dead` and `dropped`.

    received = committed + duplicate + rejected; committed = stored + dead + dropped + waiting.
    """

    def __init__(self, journal: Journal, lanes: Sequence[Forwarder], agent: str) -> None:
        self._journal = journal
        self._lanes = lanes
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

    def signals(self) -> list[dict[str, int | str]]:
        """The counts of each signal that has any."""
        table = self.table()
        signals = self._journal.signals
        return [
            {
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
