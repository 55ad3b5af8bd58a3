"""Nelson's tests, against their definition taken word for word, and their run lengths."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from analytics import nelson, rules
from analytics.nelson import ALTERNATING_ARL, STEADY_ARL
from analytics.ruleset import RuleMemory, RuleSet


def by_definition(x: list[float]) -> int:
    """Tests that the last of x fires, of a chart with centre 0 and sigma 1."""
    fired = 1 if abs(x[-1]) > 3 else 0
    steps = [b - a for a, b in pairwise(x)]
    for side in (1, -1):
        y = [side * v for v in x]
        if len(y) >= 9 and all(v > 0 for v in y[-9:]):
            fired |= 2
        if len(y) >= 6 and all(side * s > 0 for s in steps[-5:]):
            fired |= 4
        if y[-1] > 2 and sum(v > 2 for v in y[-3:]) >= 2:
            fired |= 16
        if y[-1] > 1 and sum(v > 1 for v in y[-5:]) >= 4:
            fired |= 32
    if len(x) >= 14 and all(a * b < 0 for a, b in zip(steps[-13:], steps[-12:], strict=False)):
        fired |= 8
    if len(x) >= 15 and all(abs(v) <= 1 for v in x[-15:]):
        fired |= 64
    last = x[-8:]
    if len(x) >= 8 and all(abs(v) > 1 for v in last) and min(last) < 0 < max(last):
        fired |= 128
    return fired


def fired_by(x: list[float]) -> list[int]:
    state, previous, found = nelson.new_state(1), np.array([np.nan]), []
    for v in x:
        value = np.array([v])
        state, now = nelson.step(state, rules.zones(value, np.zeros(1), np.ones(1)), value, previous)
        previous = value
        found.append(int(now[0]))
    return found


@given(st.lists(st.sampled_from([-3.5, -2.5, -1.5, -0.7, -0.2, 0.0, 0.2, 0.7, 1.5, 2.5, 3.5]), min_size=1, max_size=60))
def test_equal_to_the_definition(x: list[float]) -> None:
    assert fired_by(x) == [by_definition(x[: i + 1]) for i in range(len(x))]


@pytest.mark.parametrize(
    ("x", "test"),
    [
        ([0.5, 0.6] * 8, 4), ([2.5, -1.5] * 4, 8), ([0.1 * i for i in range(-3, 3)], 3), ([0.5, 0.4, 0.5] * 3, 2),
        ([0.9, -0.8, -0.7] * 5, 7), ([2.1, 0.0, 2.1], 5), ([1.2, 1.3, 0.0, 1.3, 1.2], 6), ([0.0, 3.1], 1),
    ],
)  # fmt: skip
def test_each_fires_on_its_pattern_and_not_before(x: list[float], test: int) -> None:
    if test == 4:
        x = x[:14]
    found = [bool(f >> (test - 1) & 1) for f in fired_by(x)]
    assert found == [False] * (len(x) - 1) + [True]


def test_eight_in_a_row_are_western_electrics_alone() -> None:
    x = [0.5, 0.4, 0.6, 0.3, 0.5, 0.4, 0.6, 0.3]
    assert not any(f & 2 for f in fired_by(x))
    state = rules.new_state(1)
    for v in x:
        state, now = rules.step(state, rules.zones(np.array([v]), np.zeros(1), np.ones(1)))
    assert int(now[0]) == 8


def run_lengths(chosen: RuleSet, runs: int, seed: int) -> NDArray[np.float64]:
    random, memory = np.random.default_rng(seed), RuleMemory(chosen)
    memory.grow(runs)
    for i in range(runs):
        memory.forget(i)
    alive, length = np.arange(runs), np.zeros(runs)
    while len(alive):
        length[alive] += 1
        broken = memory.step(alive, random.normal(size=len(alive)), np.zeros(len(alive)), np.full(len(alive), 3.0))
        alive = alive[broken == 0]
    return length


@pytest.mark.parametrize(
    ("names", "most"),
    [
        (("nelson",), 0.07),
        (("nelson-1", "nelson-2", "nelson-3"), 0.04),
        (("nelson-1", "nelson-2", "nelson-5", "nelson-6"), 0.0),
    ],
)
def test_run_lengths_by_simulation(names: tuple[str, ...], most: float) -> None:
    """The sum of rates is cautious, by at most what `nelson_arl` says; the chain alone is exact."""
    chosen = RuleSet.of(names)
    length = run_lengths(chosen, 4000, 3)
    error = 3.5 * length.std() / np.sqrt(len(length)) / length.mean()
    ratio = float(chosen.arl()) / length.mean()
    assert 1 - most - error < ratio < 1 + error


@pytest.mark.parametrize(("name", "arl"), [("nelson-3", STEADY_ARL), ("nelson-4", ALTERNATING_ARL)])
def test_tests_of_order_alone(name: str, arl: float) -> None:
    length = run_lengths(RuleSet.of((name,)), 3000, 4)
    assert length.mean() == pytest.approx(arl, abs=3.5 * length.std() / np.sqrt(len(length)))


def test_all_eight_cost_one_point_in_forty_four() -> None:
    """A rate per point, whatever went before: what the package capstat-core states of the full set."""
    random, memory = np.random.default_rng(8), RuleMemory(RuleSet.of(("nelson",)))
    memory.grow(500)
    broken = [
        memory.step(np.arange(500), random.normal(size=500), np.zeros(500), np.full(500, 3.0)) for _ in range(300)
    ]
    assert 1 / np.mean(np.array(broken[20:]) > 0) == pytest.approx(44, abs=2)


def test_names() -> None:
    assert nelson.rules_of(nelson.rule_mask(["nelson-7", "nelson-1"])) == ["nelson-1", "nelson-7"]
    assert RuleSet.of(("nelson",)).mask == 255
    assert RuleSet.of(("western-electric",)).mask == 15
    assert RuleSet.of(()) == RuleSet.of(("1",))
    with pytest.raises(ValueError, match="cannot be mixed"):
        RuleSet.of(("1", "nelson-2"))
    with pytest.raises(ValueError, match="'5' is unknown"):
        RuleSet.of(("5",))
