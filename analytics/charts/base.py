"""What every kind of chart offers: one chart on many channels, columnar."""

from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.baseline import Screening, screen
from analytics.limits import Design, Estimate, spread_estimate

Floats = NDArray[np.float64]
Mask = NDArray[np.uint16]


class Lines(NamedTuple):
    """Lower control limit, centre line and upper control limit, in the unit of the statistic, steady state."""

    lcl: float
    center: float
    ucl: float


class Spread(msgspec.Struct, frozen=True, eq=False):
    """The second plot of a chart of subgroups: their ranges or standard deviations, each (k,)."""

    statistic: Floats
    center: Floats
    lcl: Floats
    ucl: Floats


class Judgement(msgspec.Struct, frozen=True, eq=False):
    """What a bank says about k items.

    Attributes:
        statistic: what the chart plots, (k,).
        lcl: lower control limit in force, (k,).
        ucl: upper control limit in force, (k,).
        violation: mask of the rules broken at this item, (k,); bit n is `ChartBank.rule_names[n]`.
        spread: the second plot, if the kind has one; its rule is the last of the names.
    """

    statistic: Floats
    lcl: Floats
    ucl: Floats
    violation: Mask
    spread: Spread | None = None


class ChartBank(Protocol):
    """One chart on many channels, with numpy state. It knows no signal, time, part or finding.

    An item is what one point of the chart stands for: one value, or a row of `columns` numbers.

    Attributes:
        rule_names: what each bit of a violation is called, as findings name it.
        columns: what an item consists of: (`value`,) · (`mean`, `range` or `std`, `size`) · (`count`, `size`) ·
            (`value`, `recipe`).
        drops_outliers: whether the baseline's outliers are left out; a model of what follows what needs them all.
    """

    rule_names: tuple[str, ...]
    columns: tuple[str, ...]
    drops_outliers: bool

    def usable(self, items: Floats) -> NDArray[np.bool_]:
        """Which items make sense, (k,)."""
        ...

    def screen(self, items: Floats) -> Screening:
        """May limits be frozen on these items (n,) or (n, columns)?"""
        ...

    def estimate(self, items: Floats) -> Estimate:
        """What a baseline says."""
        ...

    def design(self, estimate: Estimate, arl0: float | None = None) -> Design:
        """Limits for what a baseline says, such that in-control items alarm at the designed rate.

        Args:
            estimate: of the baseline.
            arl0: in place of the configured one.
        """
        ...

    def freeze(self, channel: int, estimate: Estimate, design: Design) -> Lines:
        """Set a channel's limits and start its statistic afresh."""
        ...

    def update(self, channel: NDArray[np.intp], items: Floats) -> Judgement:
        """Judge usable items (k,) or (k, columns) of frozen channels, each channel at most once, as its next item."""
        ...

    def grow(self, channels: int) -> None:
        """Make room for `channels` channels."""
        ...

    def save(self) -> dict[str, Any]:
        """State as plain values that msgpack keeps exactly."""
        ...

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        ...


class OfValues:
    """What kinds share whose items are single values."""

    columns: tuple[str, ...] = ("value",)
    drops_outliers: bool = True

    def usable(self, items: Floats) -> NDArray[np.bool_]:
        """Every finite value makes sense."""
        return np.ones(len(items), bool)

    def screen(self, items: Floats) -> Screening:
        """See `analytics.baseline.screen`."""
        return screen(items)

    def estimate(self, items: Floats) -> Estimate:
        """Mean and sample standard deviation."""
        return spread_estimate(items)
