"""Versions of frozen limits, with what it takes to bring one back, and what became of each wish for others.

A version's number is never used twice for one chart and signal, also if the chart is configured anew.
"""

from collections import deque
from typing import Any

import msgspec

from analytics.limits import Design, Estimate
from fieldlab.model import Limits, SignalKey

MOST = 20  # versions kept of one signal and recipe
MOST_ASKED = 200


class Frozen(msgspec.Struct, frozen=True):
    """One version.

    Attributes:
        limits: with number, time and how they were designed.
        estimate: what the baseline said; None if the chart was configured otherwise then, so that it cannot come back.
        design: where the limits stand.
        model: of a multivariate chart, in place of those two, packed.
    """

    limits: Limits
    estimate: Estimate | None = None
    design: Design | None = None
    model: bytes = b""

    @property
    def may_return(self) -> bool:
        """Whether it can be brought back."""
        return self.design is not None or bool(self.model)


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """The `detail` of a `Control(action="freeze")`.

    Attributes:
        id: what the answer is found by.
        chart: its name.
        signal: path, or a glob over `machine/signal`; empty for all.
        recipe: whose limits, of those that run now; None for whatever runs.
        version: to bring back; None to freeze anew.
        items: what to freeze on, rows of what an item of the chart consists of; None for the newest values.
    """

    id: str
    chart: str
    signal: str = ""
    recipe: str | None = None
    version: int | None = None
    items: list[list[float]] | None = None


class NotGrantedError(Exception):
    """Why a wish is not granted, in words."""


class Asked(msgspec.Struct, frozen=True):
    """What became of a wish to freeze limits, or to bring a version back.

    Attributes:
        id: of the wish.
        time: when it was asked, ns.
        by: who asked.
        chart: its name.
        signal: path; empty if nothing fitted.
        recipe: whose limits; empty where there is one set.
        done: whether it was done.
        words: what was done, or why not.
        version: in force now; 0 if limits are still being learned.
    """

    id: str
    time: int
    by: str
    chart: str
    signal: str
    recipe: str
    done: bool
    words: str
    version: int = 0


class Versions:
    """Every version of the signals under one chart, oldest first."""

    def __init__(self) -> None:
        self._kept: dict[SignalKey, list[Frozen]] = {}
        self._last: dict[SignalKey, int] = {}

    def next(self, key: SignalKey) -> int:
        """The number of the next version."""
        return self._last.get(key, 0) + 1

    def add(self, key: SignalKey, frozen: Frozen) -> None:
        """Keep a version; the oldest of its recipe gives way."""
        kept = self._kept.setdefault(key, [])
        kept.append(frozen)
        self._last[key] = frozen.limits.version
        of_recipe = [f for f in kept if f.limits.recipe == frozen.limits.recipe]
        if len(of_recipe) > MOST:
            kept.remove(of_recipe[0])

    def find(self, key: SignalKey, version: int) -> Frozen | None:
        """A version, if it is kept."""
        return next((f for f in self._kept.get(key, ()) if f.limits.version == version), None)

    def of(self, key: SignalKey) -> list[Frozen]:
        """Those of a signal, oldest first."""
        return list(self._kept.get(key, ()))

    def handed_on(self) -> "Versions":
        """For a chart that is configured anew: these can be seen, but not come back, and numbers go on behind them."""
        heir = Versions()
        heir.load(self.save())
        for key in self._kept:
            heir.retire(key)
        return heir

    def retire(self, key: SignalKey) -> None:
        """Other values feed the chart now: the versions of a signal can be seen, but not come back."""
        self._kept[key] = [Frozen(f.limits) for f in self._kept.get(key, ())]

    def save(self) -> list[Any]:
        """State as plain values."""
        return [
            [
                msgspec.to_builtins(key),
                self._last.get(key, 0),
                [msgspec.to_builtins(f, builtin_types=(bytes,)) for f in kept],
            ]
            for key, kept in self._kept.items()
        ]

    def load(self, saved: list[Any]) -> None:
        """Take the state of `save`."""
        self._kept, self._last = {}, {}
        for plain, last, kept in saved:
            key = msgspec.convert(plain, SignalKey)
            self._last[key], self._kept[key] = last, msgspec.convert(kept, list[Frozen], builtin_types=(bytes,))


class AskedLog:
    """The newest wishes, of all charts."""

    def __init__(self) -> None:
        self.newest: deque[Asked] = deque(maxlen=MOST_ASKED)

    def save(self) -> list[Any]:
        """State as plain values."""
        return [msgspec.to_builtins(asked) for asked in self.newest]

    def load(self, saved: list[Any]) -> None:
        """Take the state of `save`."""
        self.newest = deque(msgspec.convert(saved, list[Asked]), maxlen=MOST_ASKED)
