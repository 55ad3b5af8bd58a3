"""Client handles of one server → indices of signals. Scalars by one array; the elements of arrays one by one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from edge.sources.base import Sink
from edge.sources.opcua.columns import SCALAR, Columns
from edge.sources.opcua.config import DeclaredSignal
from edge.sources.opcua.ranges import true_path
from fieldlab.model import Batch, BatchBuilder, SignalInfo, SignalKey, SignalKind
from fieldlab.model.signal import TooManySignalsError

log = structlog.get_logger()

BAD_NO_DATA: Final = 0x809B0000  # BadNoData: a field or an element that is absent now
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
        self._lengths: dict[int, int] = {}  # handle → elements of its newest array
        self._leaves: dict[int, dict[str, int | None]] = {}
        self._states: dict[int, dict[str, str]] = {}
        self._keys: dict[int, SignalKey] = {}
        self._full: set[int] = set()
        self._handles: NDArray[np.uint32] | None = None  # of the last notification, all of them plain signals
        self._signals: NDArray[np.uint32] = np.empty(0, np.uint32)
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
        leaves = [i for found in self._leaves.values() for i in found.values() if i is not None]
        return np.asarray(scalars + elements + leaves, np.uint32)

    def key_of(self, index: int) -> SignalKey:
        """Which signal it is; it was described here."""
        return self._keys[index]

    def declared_key(self, handle: int) -> SignalKey | None:
        """The signal that a handle was given out for; None if it never was."""
        return self._declared[handle].key if handle < len(self._declared) else None

    def all_of(self, handle: int) -> list[int]:
        """The signals that a handle became so far; its own name if there are none."""
        parts = [*self._elements.get(handle, ()), *self._leaves.get(handle, {}).values()]
        found = [self._scalar_index(handle)] if not parts and handle < len(self._declared) else parts
        return [index for index in found if index is not None]

    def set_states(self, handle: int, states: dict[str, str]) -> None:
        """What the numbers of a handle mean, where the configuration does not say it."""
        if self._states.get(handle) == states:
            return
        self._states[handle] = states
        if self._scalar[handle] != _UNKNOWN:
            self._describe(handle, self._declared[handle].key)
        for i, known in enumerate(self._elements.get(handle, ())):
            if known is not None:
                self._describe(handle, self._element_key(handle, i))

    def leaf(self, handle: int, path: str, states: Mapping[str, str], *, text: bool) -> int | None:
        """The signal of a value within another, such as `.position.x`; None if there may be no more signals."""
        if not path:
            return self._scalar_index(handle) if handle < len(self._declared) else None
        if handle >= len(self._declared):
            return None
        self._handles = None
        leaves = self._leaves.setdefault(handle, {})
        if path not in leaves:
            known = self._declared[handle]
            kind: SignalKind = "state" if states else "text" if text else "gauge"
            key = SignalKey(known.key.place, known.key.name + true_path(path, known.first))
            # Unit, limits and scale of the whole would be wrong for its parts: [[signal]] gives them theirs.
            info = SignalInfo(key=key, kind=kind, guarantee=known.info.guarantee, states=dict(states))
            leaves[path] = self._tell(handle, info, 1.0, 0.0)
        return leaves[path]

    def to_batch(self, columns: Columns) -> Batch:
        """The readings by signal; `refused` and `unknown` count those that are dropped."""
        batch = columns.batch
        handles = batch.signal
        if handles is self._handles and columns.element is None:
            return _of(self._signals, batch)
        self._handles = None
        if (
            columns.element is None
            and not self._elements
            and not self._leaves
            and len(handles)
            and int(handles.max()) < len(self._scalar)
        ):
            signal = self._scalar[handles]
            if not (signal == _UNKNOWN).any():
                if not handles.flags.writeable:  # the decoder gives the same array while the handles are the same
                    self._handles, self._signals = handles, signal
                    signal.flags.writeable = False
                return _of(signal, batch)
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
            whole = element == SCALAR and valueless[row]
            found: Iterable[int | None]
            if whole and (handle in self._elements or handle in self._leaves):
                found = self.all_of(handle)  # a status of the whole is one of each part
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

    def gone(self, columns: Columns) -> Batch | None:
        """BadNoData for elements that arrays had before and have no more, at the time of the shorter array.

        Only the newest array of a node counts; one without any element has no row that could tell.
        """
        if columns.element is None:
            return None
        array = np.flatnonzero(columns.element != SCALAR)
        last = dict(zip(columns.batch.signal[array].tolist(), array.tolist(), strict=True))
        builder = BatchBuilder()
        for handle, row in last.items():
            length = int(columns.element[row]) + 1
            for index in self._elements.get(handle, ())[length : self._lengths.get(handle, 0)]:
                if index is not None:
                    builder.add(index, int(columns.batch.time[row]), None, BAD_NO_DATA)
            self._lengths[handle] = length
        return builder.build() if len(builder) else None

    def _scalar_index(self, handle: int) -> int | None:
        known = self._scalar[handle]
        if known != _UNKNOWN:
            return int(known)
        found = self._describe(handle, self._declared[handle].key)
        if found is not None:
            self._scalar[handle] = found
        return found

    def _element_index(self, handle: int, element: int) -> int | None:
        self._handles = None
        found = self._elements.setdefault(handle, [])
        while len(found) <= element:
            found.append(self._describe(handle, self._element_key(handle, len(found))))
        return found[element]

    def _element_key(self, handle: int, element: int) -> SignalKey:
        """The name of an element holds its true index, also where only a part of the array is read."""
        known = self._declared[handle]
        return SignalKey(known.key.place, f"{known.key.name}[{known.first + element}]")

    def _describe(self, handle: int, key: SignalKey) -> int | None:
        known = self._declared[handle]
        info = msgspec.structs.replace(known.info, key=key)
        states = self._states.get(handle)
        if states and not info.states:
            info = msgspec.structs.replace(info, kind="state", states=states)
        return self._tell(handle, info, known.scale, known.offset)

    def _tell(self, handle: int, info: SignalInfo, scale: float, offset: float) -> int | None:
        if handle in self._full:
            return None
        try:
            index = self._sink.describe(info, scale=scale, offset=offset)
        except TooManySignalsError as e:
            self._full.add(handle)
            log.warning("opcua_signal_refused", signal=info.key.short, reason=str(e))
            return None
        except ValueError as e:  # a field's name, or a path, that is too long
            log.warning("opcua_signal_refused", signal=info.key.short, reason=str(e))
            return None
        self._keys[index] = info.key
        return index


def _of(signal: NDArray[np.uint32], batch: Batch) -> Batch:
    """`batch` by signal."""
    return Batch(
        signal, batch.time, batch.value, batch.status, batch.text_row, batch.text, batch.integer_row, batch.integer
    )


def overflow(batch: Batch) -> dict[int, int]:
    """Signal index → readings whose Overflow bit says that the server's queue lost at least one before them."""
    lost = (batch.status & _OVERFLOW_MASK) == _OVERFLOW
    if not lost.any():
        return {}
    signals, counts = np.unique(batch.signal[lost], return_counts=True)
    return dict(zip(signals.tolist(), counts.tolist(), strict=True))
