"""Which signals' readings a store publishes."""

import threading
from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from fieldlab.model import Batch, SignalKey, SignalTable


class Chosen:
    """The signals that globs over machine/signal choose. Safe to use from several threads.

    Args:
        globs: of which one must match.
        signals: what the indices mean.
    """

    def __init__(self, globs: Sequence[str], signals: SignalTable) -> None:
        self._globs = tuple(globs)
        self._signals = signals
        self._lock = threading.Lock()
        self._mask: NDArray[np.bool_] = np.empty(0, np.bool_)

    def mask(self) -> NDArray[np.bool_]:
        """Whether each signal of the table is chosen, (signals,)."""
        with self._lock:
            known = len(self._mask)
            if known < len(self._signals):
                more = [self.takes(key) for key in self._signals.since(known)]
                self._mask = np.append(self._mask, np.array(more, np.bool_))
            return self._mask

    def of(self, batch: Batch) -> Batch:
        """The readings of `batch` that are chosen."""
        taken = self.mask()[batch.signal]
        return batch if taken.all() else batch.take(taken)

    def takes(self, key: SignalKey) -> bool:
        """Whether `key` is chosen; a name that starts with `_` never is: nobody reads it, and findings are there."""
        if key.name.startswith("_") or key.place.machine.startswith("_"):
            return False
        return any(fnmatchcase(key.short, glob) for glob in self._globs)
