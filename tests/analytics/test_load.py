"""Designed false alarms of charts and machines, and that the engine keeps to the share."""

import numpy as np
import pytest

from analytics.charts import make_bank
from analytics.config import AnalyticsConfig, ChartConfig, PartConfig
from analytics.load import in_words, machine_load, nominal_arl0

SIGNALS = ["mill/load", "mill/speed", "mill/diameter"]


def test_the_load_of_a_machine() -> None:
    charts = (
        ChartConfig(name="each", signals=("mill/*",), per="10s"),
        ChartConfig(name="all", kind="t2", signals=("mill/*",), per="60s", false_alarm_rate=0.01),
        ChartConfig(name="means", kind="xbar-s", signals=("mill/load",), per="10s", subgroup=5, arl0=500),
        ChartConfig(name="size", kind="ewma", signals=("mill/diameter",)),
        ChartConfig(name="other", signals=("robot/*",)),
    )
    config = AnalyticsConfig(charts=charts, parts=(PartConfig(machine="mill", id="id"),))
    loads = {load.chart: load for load in machine_load(config, "mill", SIGNALS)}
    assert loads.keys() == {"each", "all", "means", "size"}
    assert loads["each"].a_shift == pytest.approx(3 * 2880 / 370.4, rel=1e-3)
    assert loads["all"].a_shift == pytest.approx(480 * 0.01)
    assert loads["means"].a_shift == pytest.approx(576 / 500)
    assert (loads["size"].a_shift, loads["size"].each) == (None, "part")
    words = in_words(list(loads.values()), "8h")
    assert "29 by design in a shift of 8h, and what 1 charts of parts" in words
    assert "each on 3 signals: 1 in 370 (10s)" in words
    assert "means: 1 in 500 (10s, subgroups of 5)" in words


def test_charts_that_share() -> None:
    charts = (
        ChartConfig(name="each", signals=("mill/*",), per="10s"),
        ChartConfig(name="all", kind="mewma", signals=("mill/*",), per="10s"),
        ChartConfig(name="own", kind="cusum", signals=("mill/load",), per="10s", arl0=2880.0),
    )
    loads = {c.chart: c for c in machine_load(AnalyticsConfig(charts=charts, false_alarms=0.4), "mill", SIGNALS)}
    assert [loads[name].a_shift for name in ("each", "all", "own")] == pytest.approx([0.3, 0.1, 1.0])
    assert [loads[name].arl0 for name in ("each", "all")] == pytest.approx([2880 / 0.1] * 2)


@pytest.mark.parametrize(
    ("chart", "arl0"),
    [
        (ChartConfig(signals=("m/x",), rules="western-electric"), 91.75),
        (ChartConfig(signals=("m/x",), rules="nelson"), 69.86),
        (ChartConfig(kind="p", signals=("m/x",), n=50), 370.40),
        (ChartConfig(kind="xbar-r", signals=("m/x",), subgroup=5), 370.40),
    ],
)
def test_defaults(chart: ChartConfig, arl0: float) -> None:
    assert nominal_arl0(chart) == pytest.approx(arl0, abs=0.006)


def test_the_family_alarms_as_designed() -> None:
    """What a share is for: 8 charts of one machine, frozen at their share, alarm as often as the budget says."""
    channels, length, budget = 8, 2000, 4.0  # false alarms in `length` values of the machine
    random, alarms = np.random.default_rng(6), []
    bank = make_bank(ChartConfig(signals=("m/x",), baseline=50))
    bank.grow(channels)
    for _ in range(60):
        for c in range(channels):
            learned = bank.estimate(random.normal(size=50))
            bank.freeze(c, learned, bank.design(learned, length * channels / budget))
        found = [bank.update(np.arange(channels), row).violation for row in random.normal(size=(length, channels))]
        alarms.append(np.count_nonzero(found))
    assert np.mean(alarms) == pytest.approx(budget, abs=3.5 * np.std(alarms) / np.sqrt(60))
