"""Nelson's eight tests, exactly, for many channels at once.

Source: Nelson, Journal of Quality Technology 16 (1984). 1) one value beyond 3 sigma; 2) nine in a row on one side of
the centre line (Western Electric says eight); 3) six in a row steadily up or steadily down; 4) fourteen in a row
alternating up and down; 5) two of three beyond 2 sigma on one side; 6) four of five beyond 1 sigma on one side;
7) fifteen in a row within 1 sigma; 8) eight in a row beyond 1 sigma, on both sides. A value on the centre line ends a
run of test 2, equal neighbours end one of tests 3 and 4.

>>> import numpy as np
>>> state, previous = new_state(1), np.array([np.nan])
>>> for value in np.linspace(-1.0, 1.0, 6):
...     now = np.array([value])
...     state, fired = step(state, np.array([1], np.int8), now, previous)
...     previous = now
>>> rules_of(int(fired[0]))
['nelson-3']
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from analytics.rules import ONES

RULES = tuple(f"nelson-{i}" for i in range(1, 9))
ONE_SIDE, STEADY, ALTERNATING, WITHIN, OUTSIDE = 9, 6, 14, 15, 8
_COLUMNS = 13  # 2-sigma bits up, down; 1-sigma bits up, down; run up, down; rising, falling, alternating values;
#                last direction; values within; bits beyond 1 sigma up, down (last 7)
_RISING, _FALLING, _ALTERNATE, _DIRECTION, _WITHIN, _ABOVE, _BELOW = range(6, 13)

# Values until test 3, and test 4, fires on independent values of any one continuous distribution: these tests look at
# order alone. By the integral equation over the last value's rank; tests check them by simulation.
STEADY_ARL = 421.5986
ALTERNATING_ARL = 601.0078


def rule_mask(rules: Iterable[str]) -> int:
    """Bits of the named tests: `nelson-n` is bit n - 1.

    Raises:
        ValueError: if one is unknown.
    """
    mask = 0
    for rule in rules:
        mask |= 1 << RULES.index(rule)
    return mask


def rules_of(mask: int) -> list[str]:
    """The names of the tests in `mask`, ascending."""
    return [rule for i, rule in enumerate(RULES) if mask >> i & 1]


def new_state(channels: int) -> NDArray[np.uint8]:
    """State of channels that have seen nothing, (channels, 13)."""
    return np.zeros((channels, _COLUMNS), np.uint8)


def step(
    state: NDArray[np.uint8], zone: NDArray[np.int8], value: NDArray[np.float64], previous: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One value for each of k channels.

    Args:
        state: of the channels, (k, 13); not written into.
        zone: see `analytics.rules.zones`, (k,).
        value: (k,).
        previous: the value before it, (k,); NaN for none.

    Returns:
        The next state, (k, 13), and the mask of the tests that fire at this very value, (k,).
    """
    after = np.zeros_like(state)
    far = np.abs(zone) >= 2
    fired = (np.abs(zone) >= 4).astype(np.uint8)
    for side, signed in enumerate((zone, -zone)):
        beyond2 = (signed >= 3).astype(np.uint8)
        bits2 = ((state[:, side] << 1) | beyond2) & np.uint8(7)
        beyond1 = (signed >= 2).astype(np.uint8)
        bits1 = ((state[:, 2 + side] << 1) | beyond1) & np.uint8(31)
        run = np.where(signed > 0, np.minimum(state[:, 4 + side] + 1, ONE_SIDE), 0).astype(np.uint8)
        fired |= (run >= ONE_SIDE).astype(np.uint8) << 1
        fired |= ((ONES[bits2] >= 2) & (beyond2 > 0)).astype(np.uint8) << 4
        fired |= ((ONES[bits1] >= 4) & (beyond1 > 0)).astype(np.uint8) << 5
        after[:, side], after[:, 2 + side], after[:, 4 + side] = bits2 & np.uint8(3), bits1 & np.uint8(15), run
        after[:, _ABOVE + side] = ((state[:, _ABOVE + side] << 1) | beyond1) & np.uint8(127)
    up, down = value > previous, value < previous
    direction = np.where(up, 1, np.where(down, 2, 0)).astype(np.uint8)
    rising = np.where(up, np.minimum(np.maximum(state[:, _RISING], 1) + 1, STEADY), 1)
    falling = np.where(down, np.minimum(np.maximum(state[:, _FALLING], 1) + 1, STEADY), 1)
    turned = (direction > 0) & (state[:, _DIRECTION] + direction == 3)
    alternate = np.where(turned, np.minimum(state[:, _ALTERNATE] + 1, ALTERNATING), np.where(direction > 0, 2, 1))
    within = np.where(far, 0, np.minimum(state[:, _WITHIN] + 1, WITHIN))
    fired |= ((rising >= STEADY) | (falling >= STEADY)).astype(np.uint8) << 2
    fired |= (alternate >= ALTERNATING).astype(np.uint8) << 3
    fired |= (within >= WITHIN).astype(np.uint8) << 6
    above, below = (((state[:, c].astype(np.uint16) << 1) | s) for c, s in ((_ABOVE, zone >= 2), (_BELOW, zone <= -2)))
    outside = ((above | below) == 2**OUTSIDE - 1) & (above > 0) & (below > 0)
    fired |= outside.astype(np.uint8) << 7
    after[:, _RISING], after[:, _FALLING], after[:, _ALTERNATE] = rising, falling, alternate
    after[:, _DIRECTION], after[:, _WITHIN] = direction, within
    return after, fired
