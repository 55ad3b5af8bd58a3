"""What every kind of chart offers: one chart on many channels, columnar."""

from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.limits import Design, Estimate

Floats = NDArray[np.float64]


class Judgement(msgspec.Struct, frozen=True, eq=False):
    """What a bank says about k values.

    Attributes:
        statistic: what the chart plots, (k,).
        lcl: lower control limit in force, (k,).
        ucl: upper control limit in force, (k,).
        violation: mask of the rules broken at this value, (k,) u8; bit n is `ChartBank.rule_names[n]`.
    """

    statistic: Floats
    lcl: Floats
    ucl: Floats
    violation: NDArray[np.uint8]


class ChartBank(Protocol):
    """One chart on many channels, with numpy state. It knows no signal, time, part or finding.

    Attributes:
        rule_names: what each bit of a violation is called, as findings name it.
    """

    rule_names: tuple[str, ...]

    def design(self, n: int) -> Design:
        """Limits for a baseline of n values, such that in-control values alarm at the designed rate."""
        ...

    def freeze(self, channel: int, estimate: Estimate, design: Design) -> tuple[float, float]:
        """Set a channel's limits and start its statistic afresh. Returns (LCL, UCL), steady state."""
        ...

    def update(self, channel: NDArray[np.intp], value: Floats) -> Judgement:
        """Judge finite values of frozen channels, each channel at most once, as its next value."""
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
