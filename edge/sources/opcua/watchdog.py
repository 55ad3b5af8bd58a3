"""Is an item silent because nothing changes, or because the server has forgotten it? Asks, and makes it anew.

Keep-alives say that a subscription lives; they say nothing of an item. So what was heard last of each item is kept, and
an item that is silent for long is read once: if the server has another value than we do, the item is dead.
"""

import time
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edge.sources.opcua.columns import Columns
from fieldlab.model import Batch

_MEANING = np.uint32(0xFFFF0000)  # without the info bits, such as Overflow


class Freshness:
    """When each client handle was heard, and its last value and status; of an array, those of the last element."""

    def __init__(self) -> None:
        self._heard: NDArray[np.float64] = np.empty(0)
        self._value: NDArray[np.float64] = np.empty(0)
        self._status: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._text: dict[int, str] = {}
        self._newest: Batch | None = None
        self._came = 0.0

    def grow(self, size: int) -> None:
        """There are `size` handles now; those that are new count as heard."""
        self._keep()
        extra = size - len(self._heard)
        if extra > 0:
            self._heard = np.append(self._heard, np.full(extra, time.monotonic()))
            self._value = np.append(self._value, np.full(extra, np.nan))
            self._status = np.append(self._status, np.zeros(extra, np.uint32))

    def restart(self) -> None:
        """A connection is new: nobody has been silent yet."""
        self._keep()
        self._heard[:] = time.monotonic()

    def note(self, columns: Columns) -> None:
        """These came."""
        if self._newest is not None and columns.batch.signal is not self._newest.signal:
            self._keep()
        # Of notifications with the same handles only the last one counts: it is looked at when somebody asks.
        self._newest, self._came = columns.batch, time.monotonic()

    def _keep(self) -> None:
        """Note what came last."""
        batch, self._newest = self._newest, None
        if batch is None:
            return
        handles = batch.signal
        if not len(handles) or not len(self._heard) or int(handles.max()) >= len(self._heard):
            return  # a handle that was never given out is counted elsewhere
        self._heard[handles] = self._came
        self._value[handles] = batch.value
        self._status[handles] = batch.status
        if batch.text:
            self._text.update(zip(handles[batch.text_row].tolist(), batch.text, strict=True))

    def silent(self, handles: Iterable[int], limits: dict[int, float]) -> list[int]:
        """Those of `handles` that were not heard for as many seconds as `limits` says."""
        self._keep()
        now = time.monotonic()
        return [h for h in handles if h in limits and h < len(self._heard) and now - self._heard[h] > limits[h]]

    def since(self, handle: int) -> float:
        """When it was heard, monotonic seconds."""
        self._keep()
        return float(self._heard[handle])

    def differing(self, columns: Columns) -> list[int]:
        """Handles of which `columns`, just read, say something else than what was heard."""
        self._keep()
        batch = columns.batch
        texts = batch.texts()
        found: dict[int, bool] = {}
        for row, (handle, value, status) in enumerate(
            zip(batch.signal.tolist(), batch.value.tolist(), batch.status.tolist(), strict=True)
        ):
            known = float(self._value[handle])
            same = value == known or (np.isnan(value) and np.isnan(known))
            same &= not (np.uint32(status) ^ self._status[handle]) & _MEANING
            if row in texts:
                same &= texts[row] == self._text.get(handle)
            found[handle] = not same
        return [handle for handle, other in found.items() if other]
