"""The newest reading of every signal, asked from the store within a budget of time."""

import math
from collections.abc import Iterable
from time import monotonic

from board.view import Latest
from fieldlab.model import SignalKey
from ingest.stores.base import Reader

_EVER = 2**63 - 1


class LatestReadings:
    """Asks for signals in turn, so that many signals make the values older, not the board slower."""

    def __init__(self, budget: float = 0.1) -> None:
        """Take at most `budget` seconds a refresh."""
        self._budget = budget
        self._turn: list[SignalKey] = []
        self.known: dict[SignalKey, Latest] = {}

    def refresh(self, reader: Reader, keys: Iterable[SignalKey]) -> None:
        """Read on where the last refresh stopped; at least one signal."""
        wanted = set(keys)
        self.known = {key: value for key, value in self.known.items() if key in wanted}
        self._turn = [key for key in self._turn if key in wanted]
        self._turn += sorted(wanted.difference(self._turn))
        until = monotonic() + self._budget
        for done, key in enumerate(list(self._turn), 1):
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
                self._turn = self._turn[done:] + self._turn[:done]
                return
