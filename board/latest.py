"""The newest reading of every signal, asked from the store within a budget of time."""

import math
from collections.abc import Iterable
from time import monotonic

from board.view import Latest
from fieldlab.model import SignalKey
from ingest.stores.base import Reader, Series

_EVER = 2**63 - 1
_RECENT = 10 * 10**9  # ns


class LatestReadings:
    """One query a refresh for what is new. A quiet signal, or one whose clock is far behind, is asked for in turn.

    Attributes:
        known: signal → its newest reading.
    """

    def __init__(self, budget: float = 0.1) -> None:
        """Take at most `budget` seconds a refresh."""
        self._budget = budget
        self._turn: list[SignalKey] = []
        self.known: dict[SignalKey, Latest] = {}

    def refresh(self, reader: Reader, keys: Iterable[SignalKey], now: int) -> None:
        """Read what is new of all signals at once, then of the quiet ones as many as the budget allows, in turn.

        Args:
            reader: the store.
            keys: all signals.
            now: the time, ns.
        """
        wanted = set(keys)
        fresh = {key: _newest(series) for key, series in reader.latest(now - _RECENT).items() if key in wanted}
        self.known = {key: value for key, value in self.known.items() if key in wanted} | fresh
        self._turn = [key for key in self._turn if key in wanted]
        self._turn += sorted(wanted.difference(self._turn))
        until = monotonic() + self._budget
        quiet = [key for key in self._turn if key not in fresh]
        for key in sorted(quiet, key=lambda key: key in self.known):
            self._turn.remove(key)
            self._turn.append(key)
            series = reader.telemetry(key, 0, _EVER, limit=1)
            if len(series.time):
                self.known[key] = _newest(series)
            if monotonic() >= until:
                return


def _newest(series: Series) -> Latest:
    last = len(series.time) - 1
    value = float(series.value[last])
    return Latest(
        int(series.time[last]),
        value if math.isfinite(value) else None,
        int(series.status[last]),
        series.text.get(last, ""),
    )
