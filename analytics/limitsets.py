"""Which channel of a chart a signal's values go to: with `limits_by`, a signal has one for each recipe."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]


class LimitSets:
    """The channels of each signal, by recipe. The first recipe has the signal's own channel."""

    def __init__(self) -> None:
        self._of: dict[tuple[int, str], int] = {}
        self._recipe: dict[int, str] = {}
        self._in_force: dict[int, int] = {}

    def in_force(self, channel: int) -> int:
        """The channel that a signal's values go to now."""
        return self._in_force.get(channel, channel)

    def put(self, channel: int, to: int) -> int:
        """Let the values of a signal go to another of its channels from now on; returns the one before."""
        before = self.in_force(channel)
        self._in_force[channel] = to
        return before

    def all_of(self, channel: int) -> list[int]:
        """All channels of a signal."""
        return sorted({channel, *(c for (of, _), c in self._of.items() if of == channel)})

    def recipe(self, channel: int) -> str:
        """Whose channel it is; empty for a signal with one set of limits."""
        return self._recipe.get(channel, "")

    def channel(self, channel: int, recipe: str, new: Callable[[int], int]) -> int:
        """The channel of a signal under a recipe; `new` makes one."""
        found = self._of.get((channel, recipe))
        if found is None:
            found = channel if channel not in self._recipe else new(channel)
            self._of[channel, recipe], self._recipe[found] = found, recipe
        return found

    def save(self) -> list[Any]:
        """State as plain values."""
        return [[[of, recipe, c] for (of, recipe), c in self._of.items()], list(self._in_force.items())]

    def load(self, saved: list[Any]) -> None:
        """Take the state of `save`."""
        self._of = {(of, recipe): channel for of, recipe, channel in saved[0]}
        self._recipe = {channel: recipe for _, recipe, channel in saved[0]}
        self._in_force = {int(of): int(to) for of, to in saved[1]}


def runs(of: Rows, to: Rows) -> Iterator[Rows]:
    """Rows in pieces, in order: within one piece all values of a signal `of` go to one channel `to`."""
    start = 0
    now: dict[int, int] = {}
    for row, (signal, channel) in enumerate(zip(of.tolist(), to.tolist(), strict=True)):
        if now.setdefault(signal, channel) != channel:
            yield np.arange(start, row)
            start, now = row, {signal: channel}
    if start < len(of):
        yield np.arange(start, len(of))
