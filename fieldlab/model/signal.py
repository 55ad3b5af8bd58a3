"""What is known about a signal, and the table that numbers signals."""

import threading
from collections.abc import Iterable
from typing import Literal

import msgspec

from fieldlab.model.place import SignalKey

SignalKind = Literal["gauge", "counter", "state", "text"]
Guarantee = Literal["end-to-end", "from-receipt", "sampled"]


class SignalInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known about one signal: a row of the measurement `signal`.

    Attributes:
        key: which signal.
        unit: as printed, such as `mm` or `°C`.
        kind: gauge, counter, state or text.
        lsl: lower specification limit, in `unit`.
        usl: upper specification limit, in `unit`.
        target: nominal value, in `unit`.
        uncertainty: expanded uncertainty (k = 2) of a measured value, in `unit`; None if it is not known.
        guarantee: what "nothing lost" can mean for it (README.md, "What is guaranteed").
        states: the text of each number, where it is an enumeration or a mapped state.
    """

    key: SignalKey
    unit: str = ""
    kind: SignalKind = "gauge"
    lsl: float | None = None
    usl: float | None = None
    target: float | None = None
    guarantee: Guarantee = "end-to-end"
    states: dict[str, str] = {}
    uncertainty: float | None = None


class TooManySignalsError(Exception):
    """A new signal would exceed the cap on series (`max_series`)."""


class SignalTable:
    """Numbers signals: an append-only table u32 → `SignalKey`, safe to use from several threads.

    The journal makes it durable: an index never changes its meaning, also after a restart.
    """

    def __init__(self, keys: Iterable[SignalKey] = (), *, max_series: int = 100_000) -> None:
        self._keys = list(keys)
        self._index = {key: i for i, key in enumerate(self._keys)}
        self._lock = threading.Lock()
        self._max_series = max_series

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> SignalKey:
        return self._keys[index]

    def index(self, key: SignalKey) -> int:
        """The number of `key`, a new one if it was never seen.

        Raises:
            TooManySignalsError: if `key` is new and the table holds `max_series` already.
            ValueError: if `key` is new and a name in it cannot be one level of a path.
        """
        found = self._index.get(key)
        if found is not None:
            return found
        if SignalKey.parse(key.path) != key:  # the journal keeps the path alone, and must be able to read it
            raise ValueError(f"{key.path} is not a path of site/area/line/machine/signal")
        with self._lock:
            if key in self._index:
                return self._index[key]
            if len(self._keys) >= self._max_series:
                raise TooManySignalsError(
                    f"{key.path} would be series {len(self._keys) + 1}; max_series is {self._max_series}"
                )
            self._keys.append(key)
            self._index[key] = len(self._keys) - 1
            return len(self._keys) - 1

    def find(self, key: SignalKey) -> int | None:
        """The number of `key`, or None if it was never seen."""
        return self._index.get(key)

    def since(self, index: int) -> list[SignalKey]:
        """The keys numbered `index` and up."""
        return self._keys[index:]
