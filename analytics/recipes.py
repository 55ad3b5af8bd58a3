"""Which recipe, tool or program ran at a time: a chart with `limits_by` has limits of its own for each."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics.parts import text_at
from fieldlab.model import Batch, Place, SignalInfo, SignalKey
from fieldlab.model.status import is_good

Ints = NDArray[np.int64]

MOST = 64  # changes of a signal that are remembered: a part or window with more is longer than anybody's


class Recipes:
    """What the signals that charts name in `limits_by` say, and since when. `take` each batch before it is judged."""

    def __init__(self) -> None:
        self._index: dict[SignalKey, int] = {}
        self._times: dict[int, Ints] = {}  # event times of the changes
        self._texts: dict[int, list[str]] = {}

    def unwire(self) -> None:
        """Forget which signals these are, but not what they said."""
        self._index = {}

    def wire(self, index: int, key: SignalKey) -> None:
        """Take note of a signal that says it."""
        self._index[key] = index

    def take(self, batch: Batch, info: Callable[[SignalKey], SignalInfo]) -> None:
        """Note what is said in these readings, in event order a machine; silence and Bad readings change nothing."""
        if not self._index:
            return
        good = is_good(batch.status)
        for key, index in self._index.items():
            texts = self._texts.setdefault(index, [])
            times: list[int] = []
            for row in np.flatnonzero((batch.signal == index) & good).tolist():
                text = text_at(batch, row, info(key))
                if text and (not texts or text != texts[-1]):
                    texts.append(text)
                    times.append(int(batch.time[row]))
            before = self._times.get(index, np.zeros(0, np.int64))
            self._times[index] = np.concatenate([before, np.array(times, np.int64)])

    def settle(self) -> None:
        """The batch has been judged: forget what is long past."""
        for index in self._times:
            self._times[index], self._texts[index] = self._times[index][-MOST:], self._texts[index][-MOST:]

    def at(self, place: Place, names: Sequence[str], time: int) -> tuple[str, int]:
        """What runs at `time`, and since when: `P1`, or `P1, T2` of two signals; empty while one has said nothing."""
        told, since = [], -(2**62)
        for name in names:
            index = self._index.get(SignalKey(place, name), -1)
            times = self._times.get(index)
            found = 0 if times is None else int(np.searchsorted(times, time, side="right"))
            if times is None or not found:
                return "", since
            told.append(self._texts[index][found - 1])
            since = max(since, int(times[found - 1]))
        return ", ".join(told), since

    def save(self) -> list[Any]:
        """State as plain values."""
        return [[index, times.tolist(), self._texts[index]] for index, times in self._times.items()]

    def load(self, saved: list[Any]) -> None:
        """Take the state of `save`."""
        self._times = {int(index): np.array(times, np.int64) for index, times, _ in saved}
        self._texts = {int(index): [str(t) for t in texts] for index, _, texts in saved}
