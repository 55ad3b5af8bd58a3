"""How a healthy sensor behaves, learned from its first readings, and from when on its behaviour is no chance.

A run of k equal (or still) readings has, among independent readings of which a share p repeats the one before, a
chance of p^k to begin at any reading. A finding asks for `CHANCE`, a doubt for `DOUBT`, with p from three more repeats
than were seen (the rule of three); and for five times (twice) the longest run of the learned readings, because
readings depend on each other.
"""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

CHANCE, DOUBT = 1e-12, 1e-6  # a reading
COARSE = 0.02  # share of repeats from which a signal is coarse by nature: how long it rests says less then
STILL = 0.1  # of the median change: a change that is hardly one
FEWEST = 12  # readings in a row for a finding
JUMP = 4.0  # times the largest change that was ever seen
REGULAR = 3.0  # longest gap between readings that come regularly, in mean gaps
OVERDUE = 10.0  # longest gaps without a reading
SHORTEST_SILENCE = 5.0  # s
FAST = 1.0  # s between readings, at most, of a quantity that cannot jump and come back in between


class Reference(msgspec.Struct, frozen=True):
    """What was learned of a signal.

    Attributes:
        typical: median change from a reading to the next.
        largest: largest change.
        low: lowest reading.
        high: highest reading.
        equal: share of readings that repeat the one before.
        equal_run: most repeats in a row.
        still: share of changes below `STILL` of the typical one.
        still_run: most of those in a row.
        gap: mean gap between readings, s.
        longest_gap: s.
        fast: whether readings are so close together, and so many to a part, that no lone jump is the process's.
    """

    typical: float
    largest: float
    low: float
    high: float
    equal: float
    equal_run: int
    still: float
    still_run: int
    gap: float
    longest_gap: float
    fast: bool

    @property
    def regular(self) -> bool:
        """Whether readings come regularly."""
        return self.gap > 0 and self.longest_gap <= REGULAR * self.gap

    @property
    def silence(self) -> float:
        """Without a reading for so long, a sensor is silent, s; infinite if its readings do not come regularly."""
        return max(OVERDUE * self.longest_gap, SHORTEST_SILENCE) if self.regular else math.inf


def learn(
    value: NDArray[np.float64], broken: NDArray[np.bool_], gap: float, longest_gap: float, *, dense: bool
) -> Reference | None:
    """What readings in a row say of a sensor; None if most repeat the one before: there is nothing to learn from those.

    Args:
        value: readings, (n,).
        broken: whether the machine stood between a reading and the one before, (n,).
        gap: mean gap between them, s.
        longest_gap: s.
        dense: whether there are several readings to a part.

    >>> import numpy as np
    >>> x = np.random.default_rng(1).normal(20, 1, 300)
    >>> found = learn(x, np.zeros(300, bool), 0.1, 0.12, dense=True)
    >>> f"{found.typical:.2f} {found.equal} {found.still:.3f} {found.silence:.0f} s"
    '0.93 0.0 0.047 5 s'
    """
    change = np.abs(np.diff(value))
    change = change[~broken[1:]]
    equal = change == 0
    if len(change) == 0 or 2 * np.count_nonzero(equal) >= len(change):
        return None
    typical = float(np.median(change))
    still = change <= STILL * typical
    return Reference(
        typical=typical, largest=float(change.max()), low=float(value.min()), high=float(value.max()),
        equal=float(equal.mean()), equal_run=longest(equal), still=float(still.mean()), still_run=longest(still),
        gap=gap, longest_gap=longest_gap, fast=dense and 0 < gap <= FAST,
    )  # fmt: skip


def no_chance(share: float, run: int, learned: int, *, coarse: bool) -> tuple[int, int]:
    """Readings in a row for a finding, and for a doubt.

    Args:
        share: of learned readings that were so.
        run: longest of them in a row.
        learned: readings.
        coarse: whether the signal is coarse by nature: then twice as many, and a doubt where others are sure.

    >>> no_chance(0.0, 0, 300, coarse=False)
    (12, 3)
    >>> no_chance(0.2, 4, 300, coarse=True)
    (40, 20)
    """
    p = min(share + 3.0 / learned, 0.9)
    certain, likely = (math.ceil(math.log(chance) / math.log(p)) for chance in (CHANCE, DOUBT))
    found = max(certain, 5 * run, FEWEST)
    return (2 * found, found) if coarse else (found, max(likely, 2 * run + 1, 3))


def longest(flags: NDArray[np.bool_]) -> int:
    """The longest run of True."""
    ends = np.flatnonzero(np.diff(np.concatenate([[0], flags.view(np.int8), [0]])))
    return int((ends[1::2] - ends[::2]).max()) if len(ends) else 0
