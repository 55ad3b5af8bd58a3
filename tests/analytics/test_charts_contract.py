"""The contract of every kind of chart: add a kind to `CHARTS` and it is held to it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from analytics.charts import ChartBank, make_bank
from analytics.config import KINDS, VECTOR_KINDS, ChartConfig
from analytics.limits import Estimate, spread_estimate

CHARTS = {
    "individuals": ChartConfig(signals=("m/x",)),
    "individuals with run rules": ChartConfig(signals=("m/x",), rules=("1", "2", "3")),
    "ewma": ChartConfig(kind="ewma", signals=("m/x",)),
    "ewma, short memory": ChartConfig(kind="ewma", signals=("m/x",), lambda_=0.6),
}
K, LENGTH = 5, 200


@pytest.fixture(params=list(CHARTS))
def config(request: pytest.FixtureRequest) -> ChartConfig:
    return CHARTS[request.param]


def values(seed: int = 1) -> NDArray[np.float64]:
    x = np.random.default_rng(seed).normal(size=(LENGTH, K))
    x[120:] += np.linspace(0, 3, K)
    return x


def frozen(config: ChartConfig, offset: float = 0.0, scale: float = 1.0) -> ChartBank:
    bank = make_bank(config)
    bank.grow(K)
    baseline = np.random.default_rng(9).normal(size=(50, K)) * scale + offset
    for channel in range(K):
        bank.freeze(channel, spread_estimate(baseline[:, channel]), bank.design(50))
    return bank


def run(bank: ChartBank, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    found = [bank.update(np.arange(K), row) for row in x]
    return np.array([f.statistic for f in found]), np.array([f.violation for f in found])


def test_every_kind_is_here() -> None:
    assert {c.kind for c in CHARTS.values()} == set(KINDS) - set(VECTOR_KINDS)


def test_together_or_one_at_a_time(config: ChartConfig) -> None:
    together, alone = run(frozen(config), values()), frozen(config)
    for i, row in enumerate(values()):
        for channel in (3, 0, 4, 1, 2):
            found = alone.update(np.array([channel]), row[[channel]])
            assert found.statistic[0] == together[0][i, channel]
            assert found.violation[0] == together[1][i, channel]


def test_saved_and_resumed_bit_for_bit(config: ChartConfig) -> None:
    x, whole, first = values(), frozen(config), frozen(config)
    expected = run(whole, x)
    run(first, x[:70])
    second = make_bank(config)
    second.load(first.save())
    got = run(second, x[70:])
    assert got[0].tobytes() == expected[0][70:].tobytes()
    assert got[1].tobytes() == expected[1][70:].tobytes()
    assert second.save() == whole.save()


@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0.0), (1000.0, -5e4), (1.0, 1e6)])
def test_scale_and_shift(config: ChartConfig, scale: float, offset: float) -> None:
    plain, violation = run(frozen(config), values())
    moved, same = run(frozen(config, offset, scale), values() * scale + offset)
    assert (moved - offset) / scale == pytest.approx(plain, abs=1e-8)
    assert (violation == same).all()


def test_mirrored_values_break_the_same_rules(config: ChartConfig) -> None:
    up, down = make_bank(config), make_bank(config)
    for bank in (up, down):
        bank.grow(K)
        for channel in range(K):
            bank.freeze(channel, Estimate(0.0, 1.0, 50), bank.design(50))
    assert (run(up, values())[1] == run(down, -values())[1]).all()


def test_a_shift_is_found_and_order_matters(config: ChartConfig) -> None:
    violation = run(frozen(config), values())[1]
    assert not violation[:100].any(axis=0).all()
    assert violation[120:, 4].any()
    _, backwards = run(frozen(config), values()[::-1].copy())
    assert np.flatnonzero(backwards[:, 4])[0] < np.flatnonzero(violation[:, 4])[0]


def test_a_constant_at_the_centre_never_alarms(config: ChartConfig) -> None:
    bank = make_bank(config)
    bank.grow(K)
    for channel in range(K):
        bank.freeze(channel, Estimate(2.5, 0.1, 100), bank.design(100))
    statistic, violation = run(bank, np.full((500, K), 2.5))
    assert not violation.any()
    assert statistic == pytest.approx(2.5)


def test_more_channels_leave_the_others_alone(config: ChartConfig) -> None:
    bank, grown = frozen(config), frozen(config)
    run(bank, values()[:50])
    run(grown, values()[:50])
    grown.grow(500)
    assert (run(bank, values()[50:])[0] == run(grown, values()[50:])[0]).all()
