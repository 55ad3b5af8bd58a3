"""While the journal takes no readings, sources are held: that is a gap of their signals, until it takes them again."""

import time
from collections.abc import Sequence

from ingest.gaps import Gaps
from ingest.journal import Journal

_HELD = "the journal took no readings: what came meanwhile waited at the machine's side, as far as its queue goes"


class Backpressure:
    """Notes the time that sources are held. `look` belongs to one thread.

    What a server's queue lost meanwhile is a gap of its own, where the source can see it; a signal that is not
    `end-to-end` had nowhere to wait, and stays unverifiable.

    Args:
        journal: that holds them.
        gaps: where it is noted.
        sources: their names.
    """

    def __init__(self, journal: Journal, gaps: Gaps, sources: Sequence[str]) -> None:
        self._journal = journal
        self._gaps = gaps
        self._sources = sources
        self._held: bool | None = None  # not looked yet: a gap of an earlier run may be open

    def look(self) -> None:
        """Open or end the gaps, as the journal is now; to be called about once a second."""
        held = self._journal.full or bool(self._journal.error)
        if held == self._held:
            return
        self._held = held
        for source in self._sources:
            signals = self._gaps.of_source(source)
            if held:
                last = self._journal.identity.newest(signals)
                self._gaps.open(source, "journal_full", last, detail=self._journal.error or _HELD)
                continue
            now, guarantees = time.time_ns(), self._gaps.guarantees()
            waited = {signal: now for signal in signals if guarantees[signal] == "end-to-end"}
            self._gaps.end(source, waited, state="closed", cause="journal_full")
            self._gaps.end(source, now, state="unverifiable", cause="journal_full")
