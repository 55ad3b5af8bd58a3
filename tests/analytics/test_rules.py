"""The Western Electric rules, against their definition taken word for word."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analytics import rules


def by_definition(zones: list[int]) -> int:
    """Rules broken at the last of `zones`: counts over the last values, in words of the handbook."""
    fired = 1 if abs(zones[-1]) == 4 else 0
    for side in (1, -1):
        z = [side * v for v in zones]
        if z[-1] >= 3 and sum(v >= 3 for v in z[-3:]) >= 2:
            fired |= 2
        if z[-1] >= 2 and sum(v >= 2 for v in z[-5:]) >= 4:
            fired |= 4
        if len(z) >= 8 and all(v > 0 for v in z[-8:]):
            fired |= 8
    return fired


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=40))
def test_equal_to_the_definition(zones: list[int]) -> None:
    state = rules.new_state(1)
    for i, zone in enumerate(zones):
        state, fired = rules.step(state, np.array([zone], np.int8))
        assert fired[0] == by_definition(zones[: i + 1])


def test_eight_in_a_row_and_not_seven() -> None:
    state, fired = rules.new_state(1), []
    for _ in range(8):
        state, now = rules.step(state, np.array([1], np.int8))
        fired.append(int(now[0]))
    assert fired == [0] * 7 + [8]


def test_zones_of_values() -> None:
    value = np.array([0.0, 0.5, -1.0, 1.5, -2.5, 3.0, 3.1])
    assert rules.zones(value, np.zeros(7), np.ones(7)).tolist() == [0, 1, -1, 2, -3, 3, 4]


def test_names() -> None:
    assert rules.rules_of(rules.rule_mask(["4", "1"])) == ["1", "4"]
