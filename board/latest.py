"""The newest reading of every signal, asked from the store within a budget of time."""

import math
from collections.abc import Iterable
from time import monotonic

from board.view import Latest
from fieldlab.model import Place, SignalKey
from ingest.stores.base import Reader

_EVER = 2**63 - 1
_RECENT = 3 * 10**9  # ns


class LatestReadings:
    """Asks for signals in turn, so that many signals make the values older, not the board slower.

    Attributes:
        known: signal → its newest reading that was asked for.
        heard: machine → a time, ns, since when it has surely spoken, also when no signal of it was asked for lately.
    """

    def __init__(self, budget: float = 0.1) -> None:
        """Take at most `budget` seconds a refresh."""
        self._budget = budget
        self._turn: list[SignalKey] = []
        self.known: dict[SignalKey, Latest] = {}
        self.heard: dict[Place, int] = {}

    def refresh(self, reader: Reader, keys: Iterable[SignalKey], now: int) -> None:
        """Read the signals that have something new first, each group from where the last refresh stopped.

        Args:
            reader: the store.
            keys: all signals; at least one is read.
            now: the time, ns.
        """
        wanted = set(keys)
        new = {key for key in reader.counts(now - _RECENT) if key in wanted}
        self.heard = {key.place: now - _RECENT for key in new}
        self.known = {key: value for key, value in self.known.items() if key in wanted}
        self._turn = [key for key in self._turn if key in wanted]
        self._turn += sorted(wanted.difference(self._turn))
        first = new | wanted.difference(self.known)
        until = monotonic() + self._budget
        for key in sorted(self._turn, key=lambda key: key not in first):
            self._turn.remove(key)
            self._turn.append(key)
            before = self.known.get(key)
            series = reader.telemetry(key, before.time if before else 0, _EVER, limit=1)
            if len(series.time):
                value = float(series.value[-1])
                self.known[key] = Latest(
                    int(series.time[-1]),
                    value if math.isfinite(value) else None,
                    int(series.status[-1]),
                    series.text.get(len(series.time) - 1, ""),
                )
            if monotonic() >= until:
                return
