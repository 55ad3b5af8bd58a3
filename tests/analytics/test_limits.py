"""Designed limits keep their rate of false alarms, the uncertainty of the baseline included."""

import math

import numpy as np
import pytest
from scipy import stats

from analytics.charts import make_bank
from analytics.config import ChartConfig
from analytics.limits import Estimate, design_ewma, design_individuals, longest_arl0, spread_estimate
from analytics.ruleset import RuleSet


def test_individuals_width_is_the_prediction_interval() -> None:
    design = design_individuals(30, arl0=370.4)
    assert design.width == pytest.approx(stats.t.ppf(1 - 0.5 / 370.4, 29) * math.sqrt(31 / 30), rel=1e-9)


def test_quadrature_agrees_with_the_exact_interval() -> None:
    """The quadrature that EWMA and run rules need, tried on the one case that has an exact answer."""
    exact = design_individuals(40, arl0=200.0).width
    assert design_ewma(40, 1.0, 200.0).width == pytest.approx(exact, rel=2e-4)


@pytest.mark.parametrize("n", [20, 50, 100])
def test_fewer_values_give_wider_limits(n: int) -> None:
    assert design_ewma(n, 0.2).width > design_ewma(2 * n, 0.2).width > design_ewma(0, 0.2).width


def test_rules_are_widened_to_the_design() -> None:
    design = design_individuals(0, RuleSet(mask=0b111), 370.4)
    assert design.arl0 == 370.4
    assert design.width > 3.3


def test_what_widening_cannot_give_is_said() -> None:
    four = RuleSet(mask=0b1111)
    assert longest_arl0(four) < 256
    assert design_individuals(0, four, 1000.0).arl0 == pytest.approx(longest_arl0(four))


def rate_of_alarms(
    config: ChartConfig, n: int, seed: int, channels: int = 3000, length: int = 600
) -> tuple[float, float]:
    """First alarms a value (the chart starts afresh after each) over many baselines, and its standard error."""
    random = np.random.default_rng(seed)
    bank = make_bank(config)
    bank.grow(channels)
    design = bank.design(Estimate(0.0, 1.0, n))
    estimates = [spread_estimate(row) for row in random.normal(size=(channels, n))]
    for channel, estimate in enumerate(estimates):
        bank.freeze(channel, estimate, design)
    everyone, alarms = np.arange(channels), np.zeros(channels)
    for _ in range(length):
        broken = bank.update(everyone, random.normal(size=channels)).violation > 0
        alarms += broken
        for channel in np.flatnonzero(broken).tolist():
            bank.freeze(channel, estimates[channel], design)
    rates = alarms / length
    return float(np.mean(rates)), float(np.std(rates) / math.sqrt(channels))


@pytest.mark.parametrize(
    ("config", "n"),
    [
        (ChartConfig(signals=("m/x",)), 30),
        (ChartConfig(signals=("m/x",), false_alarm_rate=0.01), 50),
        (ChartConfig(kind="ewma", signals=("m/x",)), 30),
        (ChartConfig(kind="ewma", signals=("m/x",), arl0=200.0), 100),
        (ChartConfig(signals=("m/x",), rules=("1", "2")), 40),
        (ChartConfig(signals=("m/x",), rules=("1", "4"), arl0=150.0), 100),
    ],
    ids=["individuals", "rate 1 %", "ewma", "ewma 200", "rules 1 2", "rules 1 4"],
)
def test_in_control_values_alarm_at_the_designed_rate(config: ChartConfig, n: int) -> None:
    rate, error = rate_of_alarms(config, n, seed=7)
    designed = 1 / make_bank(config).design(Estimate(0.0, 1.0, n)).arl0
    assert abs(rate - designed) < 3.5 * error + 0.03 * designed


def test_textbook_limits_would_not() -> None:
    """Why limits are widened: an EWMA at the known-parameter width, learned from 30 values."""
    config = ChartConfig(kind="ewma", signals=("m/x",))
    random = np.random.default_rng(3)
    bank = make_bank(config)
    bank.grow(2000)
    for channel, row in enumerate(random.normal(size=(2000, 30))):
        bank.freeze(channel, spread_estimate(row), design_ewma(0, 0.2))
    first = np.full(2000, 300.0)
    for i in range(300):
        broken = bank.update(np.arange(2000), random.normal(size=2000)).violation > 0
        first = np.where(broken & (first == 300.0), i, first)
    assert np.mean(first < 100) > 2 * (1 - math.exp(-100 / 370.4)) * 0.9


def test_estimates_survive_a_large_offset() -> None:
    """NIST StRD NumAcc4: 1,001 values about 10000000.2 with standard deviation 0.1."""
    values = np.array([10000000.2] + [10000000.1, 10000000.3] * 500)
    found = spread_estimate(values)
    assert found.center == pytest.approx(10000000.2, rel=1e-13)
    assert found.sigma == pytest.approx(0.1, rel=1e-7)
    assert isinstance(found, Estimate)
