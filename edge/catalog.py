"""What is known of each signal: the source's words, overruled by the configuration's `[[signal]]` rules."""

import threading
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.config import SignalRule
from fieldlab.model import Batch, Guarantee, SignalInfo, SignalKey, SignalTable

_STRENGTH: dict[Guarantee, int] = {"sampled": 0, "from-receipt": 1, "end-to-end": 2}


class Catalog:
    """Describes signals and turns raw values into values. Safe to use from several threads.

    Args:
        signals: the journal's table.
        rules: the configuration's `[[signal]]` tables, in order; later ones overrule earlier ones.
        on_change: called with each new or changed description.
    """

    def __init__(
        self, signals: SignalTable, rules: Sequence[SignalRule], on_change: Callable[[SignalInfo], None]
    ) -> None:
        self._signals = signals
        self._rules = rules
        self._on_change = on_change
        self._lock = threading.Lock()
        self._infos: dict[int, SignalInfo] = {}
        self._given: dict[int, tuple[SignalInfo, float, float]] = {}  # the sources' words, without the rules
        self._scale: NDArray[np.float64] = np.ones(0)
        self._offset: NDArray[np.float64] = np.zeros(0)
        self._scaled = False

    def describe(self, info: SignalInfo, *, scale: float = 1.0, offset: float = 0.0) -> int:
        """Note what a source knows of a signal; returns its index.

        Raises:
            TooManySignalsError: if it is new and the table is full.
        """
        index = self._signals.index(info.key)
        with self._lock:
            self._given[index] = (info, scale, offset)
            changed = self._overrule(index)
        if changed is not None:
            self._on_change(changed)
        return index

    def follow(self, rules: Sequence[SignalRule]) -> None:
        """Describe every signal by other rules from now on. What did not change is not told again."""
        with self._lock:
            self._rules = rules
            changed = [self._overrule(index) for index in sorted(self._given)]
        for info in changed:
            if info is not None:
                self._on_change(info)

    def _overrule(self, index: int) -> SignalInfo | None:
        """Apply the rules to what is given of a signal: its description, if that is new."""
        info, scale, offset = self._given[index]
        for rule in self._rules:
            if fnmatchcase(info.key.short, rule.match):
                info, scale, offset = _overrule(info, rule, scale, offset)
        self._set_scale(index, scale, offset)
        if self._infos.get(index) == info:
            return None
        self._infos[index] = info
        return info

    def index(self, key: SignalKey, guarantee: Guarantee) -> int:
        """The index of a signal, described by the rules alone if it is new; a weaker guarantee replaces a stronger one.

        Raises:
            TooManySignalsError: as above.
        """
        index = self._signals.find(key)
        known = None if index is None else self._infos.get(index)
        if index is None or known is None:
            return self.describe(SignalInfo(key=key, guarantee=guarantee))
        if _STRENGTH[guarantee] < _STRENGTH[known.guarantee]:
            weaker = msgspec.structs.replace(known, guarantee=guarantee)
            with self._lock:
                self._infos[index] = weaker
                given, scale, offset = self._given[index]
                self._given[index] = (msgspec.structs.replace(given, guarantee=guarantee), scale, offset)
            self._on_change(weaker)
        return index

    def guarantee(self, index: int) -> Guarantee:
        """The guarantee of a signal that was described."""
        return self._infos[index].guarantee

    def infos(self) -> list[SignalInfo]:
        """Every description, by index."""
        with self._lock:
            return [self._infos[i] for i in sorted(self._infos)]

    def unmatched(self) -> list[SignalRule]:
        """Rules that match no signal seen so far."""
        shorts = [info.key.short for info in self.infos()]
        return [rule for rule in self._rules if not any(fnmatchcase(short, rule.match) for short in shorts)]

    def apply(self, batch: Batch) -> Batch:
        """`batch` with value = raw * scale + offset where that is configured."""
        if not self._scaled:
            return batch
        scale, offset = self._scale[batch.signal], self._offset[batch.signal]
        if ((scale == 1.0) & (offset == 0.0)).all():
            return batch
        return msgspec.structs.replace(batch, value=batch.value * scale + offset)

    def _set_scale(self, index: int, scale: float, offset: float) -> None:
        grow = index + 1 - len(self._scale)
        if grow > 0:  # replaced, not changed in place: other threads read these without the lock
            self._scale = np.append(self._scale, np.ones(grow + index))
            self._offset = np.append(self._offset, np.zeros(grow + index))
        if scale != 1.0 or offset != 0.0:
            self._scaled = True
        self._scale[index], self._offset[index] = scale, offset


def _overrule(info: SignalInfo, rule: SignalRule, scale: float, offset: float) -> tuple[SignalInfo, float, float]:
    known = {name: getattr(rule, name) for name in ("unit", "kind", "lsl", "usl", "target", "uncertainty")}
    changes = {name: value for name, value in known.items() if value is not None}
    if rule.map:
        changes |= {"states": rule.map, "kind": rule.kind or "state"}
    if rule.scale != 1.0 or rule.offset != 0.0:
        scale, offset = rule.scale, rule.offset
    return msgspec.structs.replace(info, **changes), scale, offset
