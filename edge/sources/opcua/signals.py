"""Client handles of one server → indices of signals. Scalars by one array; the elements of arrays one by one."""

from collections.abc import Sequence

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from edge.sources.base import Sink
from edge.sources.opcua.columns import SCALAR, Columns
from edge.sources.opcua.config import DeclaredSignal
from fieldlab.model import Batch, SignalKey
from fieldlab.model.signal import TooManySignalsError

log = structlog.get_logger()

_UNKNOWN = np.uint32(0xFFFFFFFF)
# A DataValue whose InfoType is DataValue and whose Overflow bit is set, OPC 10000-4, 7.39.1.
_OVERFLOW_MASK = np.uint32(0x0C80)
_OVERFLOW = np.uint32(0x0480)


class SignalMap:
    """Which signal a reading is of. A signal is described to the sink when its first reading comes.

    Attributes:
        refused: readings dropped because the agent has `max_series` signals.
        unknown: readings of a client handle that was never given out.
    """

    def __init__(self, declared: Sequence[DeclaredSignal], sink: Sink) -> None:
        self._declared = declared
        self._sink = sink
        self._scalar = np.full(len(declared), _UNKNOWN, np.uint32)
        self._elements: dict[int, list[int | None]] = {}
        self._full: set[int] = set()
        self.refused = 0
        self.unknown = 0

    def grow(self, declared: Sequence[DeclaredSignal]) -> None:
        """More signals than before, behind those; a handle never changes its meaning."""
        added = len(declared) - len(self._declared)
        self._declared = declared
        self._scalar = np.concatenate([self._scalar, np.full(added, _UNKNOWN, np.uint32)])

    def indices(self) -> NDArray[np.uint32]:
        """Every signal described so far."""
        scalars = self._scalar[self._scalar != _UNKNOWN].tolist()
        elements = [i for found in self._elements.values() for i in found if i is not None]
        return np.asarray(scalars + elements, np.uint32)

    def to_batch(self, columns: Columns) -> Batch:
        """The readings by signal; `refused` and `unknown` count those that are dropped."""
        batch = columns.batch
        handles = batch.signal
        if columns.element is None and not self._elements and len(handles) and int(handles.max()) < len(self._scalar):
            signal = self._scalar[handles]
            if not (signal == _UNKNOWN).any():
                return msgspec.structs.replace(batch, signal=signal)
        return self._one_by_one(columns)

    def _one_by_one(self, columns: Columns) -> Batch:
        rows: list[int] = []
        signals: list[int] = []
        handles = columns.batch.signal.tolist()
        elements = [SCALAR] * len(handles) if columns.element is None else columns.element.tolist()
        valueless = np.isnan(columns.batch.value)
        for row, (handle, element) in enumerate(zip(handles, elements, strict=True)):
            if handle >= len(self._declared):
                self.unknown += 1
                continue
            if element == SCALAR and handle in self._elements and valueless[row]:
                found = list(self._elements[handle])  # a status of the whole array is one of each element
            elif element == SCALAR:
                found = [self._scalar_index(handle)]
            else:
                found = [self._element_index(handle, element)]
            for index in found:
                if index is None:
                    self.refused += 1
                else:
                    rows.append(row)
                    signals.append(index)
        batch = columns.batch.take(np.asarray(rows, np.intp))
        return msgspec.structs.replace(batch, signal=np.asarray(signals, np.uint32))

    def _scalar_index(self, handle: int) -> int | None:
        known = self._scalar[handle]
        if known != _UNKNOWN:
            return int(known)
        found = self._describe(handle, self._declared[handle].key)
        if found is not None:
            self._scalar[handle] = found
        return found

    def _element_index(self, handle: int, element: int) -> int | None:
        found = self._elements.setdefault(handle, [])
        while len(found) <= element:
            key = self._declared[handle].key
            found.append(self._describe(handle, SignalKey(key.place, f"{key.name}[{len(found)}]")))
        return found[element]

    def _describe(self, handle: int, key: SignalKey) -> int | None:
        if handle in self._full:
            return None
        known = self._declared[handle]
        try:
            return self._sink.describe(
                msgspec.structs.replace(known.info, key=key), scale=known.scale, offset=known.offset
            )
        except TooManySignalsError as e:
            self._full.add(handle)
            log.warning("opcua_signal_refused", signal=key.short, reason=str(e))
            return None


def overflow(batch: Batch) -> dict[int, int]:
    """Signal index → readings whose Overflow bit says that the server's queue lost at least one before them."""
    lost = (batch.status & _OVERFLOW_MASK) == _OVERFLOW
    if not lost.any():
        return {}
    signals, counts = np.unique(batch.signal[lost], return_counts=True)
    return dict(zip(signals.tolist(), counts.tolist(), strict=True))
