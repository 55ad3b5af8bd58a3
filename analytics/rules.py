"""Western Electric run rules, exactly, for many channels at once.

Source: Western Electric, Statistical Quality Control Handbook (1956); Montgomery, Introduction to SQC, 6.1:
1) one value beyond 3 sigma; 2) two of three beyond 2 sigma on one side; 3) four of five beyond 1 sigma on one side;
4) eight in a row on one side of the centre line (Nelson's rule says nine). A value on the centre line ends a run.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

RULES = ("1", "2", "3", "4")
RUN_LENGTH = 8
_STATE_COLUMNS = 6  # 2-sigma bits up, down (last 2); 1-sigma bits up, down (last 4); run up, down (at most 8)
ONES = np.array([i.bit_count() for i in range(32)], np.uint8)


def rule_mask(rules: Iterable[str]) -> int:
    """Bits of the named rules: rule `n` is bit n - 1.

    Raises:
        ValueError: if a rule is unknown.
    """
    mask = 0
    for rule in rules:
        mask |= 1 << RULES.index(rule)
    return mask


def rules_of(mask: int) -> list[str]:
    """The names of the rules in `mask`, ascending."""
    return [rule for i, rule in enumerate(RULES) if mask >> i & 1]


def new_state(channels: int) -> NDArray[np.uint8]:
    """Rule state of channels that have seen nothing, (channels, 6)."""
    return np.zeros((channels, _STATE_COLUMNS), np.uint8)


def zones(value: NDArray[np.float64], center: NDArray[np.float64], unit: NDArray[np.float64]) -> NDArray[np.int8]:
    """Signed zones, (k,): 1 within a `unit` of the centre, 2 and 3 further out, 4 beyond three, 0 on it."""
    deviation = value - center
    away = np.abs(deviation)
    zone = (away > 0).astype(np.int8)
    for multiple in (1.0, 2.0, 3.0):
        zone += away > multiple * unit
    return np.where(deviation < 0, -zone, zone).astype(np.int8)


def step(
    state: NDArray[np.uint8], zone: NDArray[np.int8], run_length: int = RUN_LENGTH
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One value for each of k channels.

    Args:
        state: rule state of the channels, (k, 6); not written into.
        zone: see `zones`, (k,).
        run_length: values in a row that break rule 4.

    Returns:
        The next state, (k, 6), and the mask of the rules that fire at this very value, (k,).
    """
    fired = (np.abs(zone) >= 4).astype(np.uint8)
    after = np.empty_like(state)
    for side, signed in enumerate((zone, -zone)):
        beyond2 = (signed >= 3).astype(np.uint8)
        bits2 = ((state[:, side] << 1) | beyond2) & np.uint8(7)
        beyond1 = (signed >= 2).astype(np.uint8)
        bits1 = ((state[:, 2 + side] << 1) | beyond1) & np.uint8(31)
        run = np.where(signed > 0, np.minimum(state[:, 4 + side] + 1, run_length), 0).astype(np.uint8)
        fired |= ((ONES[bits2] >= 2) & (beyond2 > 0)).astype(np.uint8) << 1
        fired |= ((ONES[bits1] >= 4) & (beyond1 > 0)).astype(np.uint8) << 2
        fired |= (run >= run_length).astype(np.uint8) << 3
        after[:, side] = bits2 & np.uint8(3)
        after[:, 2 + side] = bits1 & np.uint8(15)
        after[:, 4 + side] = run
    return after, fired
