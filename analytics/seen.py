"""What a chart saw, value by value: for replays, which say something of every row. Nobody listens in an agent."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

SINCE_THE_ONE_BEFORE = -(2**62)  # `first` of a value whose start the chart does not know: the part's


class Seen(msgspec.Struct, frozen=True, eq=False):
    """Judgements of one chart, in the order in which they were made.

    Attributes:
        chart: its name.
        first: event time, ns, of the first reading that each stands for, (n,).
        last: of the last.
        statistic: what the chart plots, (n,).
        lcl: lower limit, (n,); NaN while limits are learned, and where there is none.
        ucl: upper limit, (n,); NaN while limits are learned.
        violation: rules broken, (n,); 0 for none.
        contributors: the signal of each; of a multivariate chart, the channels that add most, with their shares.
    """

    chart: str
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    statistic: NDArray[np.float64]
    lcl: NDArray[np.float64]
    ucl: NDArray[np.float64]
    violation: NDArray[np.uint16]
    contributors: Sequence[str]


Watch = Callable[[Seen], None]


def span(feeder: str, width_ns: int, time: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last event time that values at `time` stand for; `width_ns` is that of a window."""
    if feeder == "reading":
        return time, time
    if feeder == "part":
        return np.full(len(time), SINCE_THE_ONE_BEFORE), time
    return time - width_ns, time - 1
