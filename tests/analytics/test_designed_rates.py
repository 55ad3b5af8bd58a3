"""In-control items alarm at the designed rate, whatever the kind of chart; baselines that would not are refused."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analytics.baseline import screen
from analytics.charts import make_bank
from analytics.charts.xbar import range_bounds
from analytics.config import ChartConfig
from analytics.counts import count_limits
from analytics.distributions import chi2_quantile

Floats = NDArray[np.float64]
Maker = Callable[[np.random.Generator, int, int], Floats]
M = ("m/x",)


def ar1(phi: float) -> Maker:
    """Stationary series of unit variance, (length, channels)."""

    def make(random: np.random.Generator, length: int, channels: int) -> Floats:
        x = np.empty((length, channels))
        x[0] = random.normal(size=channels)
        for i in range(1, length):
            x[i] = phi * x[i - 1] + math.sqrt(1 - phi * phi) * random.normal(size=channels)
        return x

    return make


def subgroups(random: np.random.Generator, length: int, channels: int, *, ranges: bool) -> Floats:
    x = random.normal(size=(length, channels, 5))
    spread = np.ptp(x, axis=2) if ranges else x.std(axis=2, ddof=1)
    return np.stack([x.mean(axis=2), spread, np.full((length, channels), 5.0)], axis=-1)


def counts(random: np.random.Generator, length: int, channels: int, *, mean: float, size: int) -> Floats:
    drawn = (
        random.binomial(size, mean / size, (length, channels)) if size > 1 else random.poisson(mean, (length, channels))
    )
    return np.stack([drawn, np.full((length, channels), size)], axis=-1).astype(float)


def overdispersed(random: np.random.Generator, length: int, channels: int) -> Floats:
    rate = random.normal(0.05, 0.01, (length, channels)).clip(0.005)
    return np.stack([random.binomial(5000, rate), np.full((length, channels), 5000)], axis=-1).astype(float)


def rate_of(config: ChartConfig, make: Maker, n: int, *, channels: int = 600, length: int = 400) -> tuple[float, float]:
    """Alarms an item over many baselines of n, and the standard error."""
    items = make(np.random.default_rng(5), n + length, channels)
    bank = make_bank(config)
    bank.grow(channels)
    for c in range(channels):
        learned = bank.estimate(items[:n, c])
        bank.freeze(c, learned, bank.design(learned))
    alarms = np.zeros(channels)
    for row in items[n:]:
        alarms += bank.update(np.arange(channels), row).violation > 0
    return float(np.mean(alarms)) / length, float(np.std(alarms)) / length / math.sqrt(channels)


@pytest.mark.parametrize(
    ("config", "make", "n", "low"),
    [
        (ChartConfig(kind="xbar-s", signals=M, subgroup=5), lambda *a: subgroups(*a, ranges=False), 30, 0.95),
        (ChartConfig(kind="xbar-r", signals=M, subgroup=5), lambda *a: subgroups(*a, ranges=True), 30, 0.95),
        (ChartConfig(kind="residual", signals=M), ar1(0.9), 100, 0.95),
        (ChartConfig(kind="residual", signals=M), ar1(0.5), 100, 0.8),
        (ChartConfig(kind="laney-p", signals=M, n=5000), overdispersed, 30, 0.8),
        # counts are whole: at most the rate
        (ChartConfig(kind="p", signals=M, n=50), lambda *a: counts(*a, mean=10.0, size=50), 30, 0.4),
        (ChartConfig(kind="c", signals=M), lambda *a: counts(*a, mean=20.0, size=1), 25, 0.4),
    ],
    ids=["xbar-s", "xbar-r", "residual 0.9", "residual 0.5", "laney-p", "p", "c"],
)
def test_in_control_items_alarm_at_the_designed_rate(config: ChartConfig, make: Maker, n: int, low: float) -> None:
    rate, error = rate_of(msgspec.structs.replace(config, arl0=100.0), make, n)
    assert low * 0.01 - 3.5 * error < rate < 1.05 * 0.01 + 3.5 * error


def test_a_cusum_that_starts_afresh() -> None:
    """Run lengths are from a fresh start; a false alarm of a CUSUM lasts for many values."""
    config, n, channels, length = ChartConfig(kind="cusum", signals=M, arl0=100.0), 60, 500, 300
    random, bank = np.random.default_rng(5), make_bank(config)
    bank.grow(channels)
    learned = [bank.estimate(row) for row in random.normal(size=(channels, n))]
    design = bank.design(learned[0])
    for c in range(channels):
        bank.freeze(c, learned[c], design)
    alarms = np.zeros(channels)
    for _ in range(length):
        broken = bank.update(np.arange(channels), random.normal(size=channels)).violation > 0
        alarms += broken
        for c in np.flatnonzero(broken).tolist():
            bank.freeze(c, learned[c], design)
    error = np.std(alarms) / length / math.sqrt(channels)
    assert abs(np.mean(alarms) / length - 0.01) < 3.5 * error + 0.0006


@pytest.mark.parametrize(("phi", "most"), [(0.3, 1.7), (0.5, 2.8)])
def test_short_baselines_with_some_memory_are_widened(phi: float, most: float) -> None:
    """n = 30: values of those that pass alarm up to three times as often as independent ones; unwidened, many times."""
    found: dict[str, float] = {}
    for name, memory in (("independent", 0.0), ("widened", phi), ("plain", phi)):
        bank = make_bank(ChartConfig(kind="ewma", signals=M, arl0=100.0))
        x = ar1(memory)(np.random.default_rng(2), 330, 500)
        learned = []
        for c in range(500):
            judged = screen(x[:30, c])
            if not judged.cause:
                allowed = round(judged.phi, 1) if name == "widened" else 0.0  # rounded: fewer designs to solve
                learned.append((c, msgspec.structs.replace(bank.estimate(x[:30, c][judged.kept]), phi=allowed)))
        bank.grow(len(learned))
        for i, (_, estimate) in enumerate(learned):
            bank.freeze(i, estimate, bank.design(estimate))
        chosen = x[30:, [c for c, _ in learned]]
        broken = [bank.update(np.arange(len(learned)), row).violation > 0 for row in chosen]
        found[name] = float(np.mean(broken))
    assert found["widened"] < most * found["independent"]
    assert found["widened"] < 0.7 * found["plain"]


def refusal(kind: str, items: Floats, **keys: Any) -> tuple[str, str]:
    judged = make_bank(ChartConfig(kind=kind, signals=M, **keys)).screen(items)
    return judged.cause, judged.words


def test_refusals_with_figure_and_proposal() -> None:
    random = np.random.default_rng(1)
    between = subgroups(random, 50, 1, ranges=False)[:, 0] + random.normal(size=(50, 1)) * [1.0, 0.0, 0.0]
    cause, words = refusal("xbar-s", between, subgroup=5)
    assert cause == "between"
    assert "variance ratio" in words
    assert "individuals" in words
    cause, words = refusal("p", overdispersed(random, 60, 1)[:, 0], n=5000)
    assert cause == "overdispersed"
    assert "laney-p" in words
    cause, words = refusal("residual", np.cumsum(random.normal(size=400)) + np.arange(400))
    assert cause == "wandering"
    assert "largest root" in words
    assert refusal("c", np.tile([0.0, 1.0], (30, 1)))[0] == "constant"
    assert refusal("residual", np.full(50, 3.0))[0] == "constant"


@pytest.mark.parametrize("kind", ["xbar-s", "xbar-r"])
def test_good_subgroups_are_seldom_refused(kind: str) -> None:
    random = np.random.default_rng(3)
    items = subgroups(random, 30, 600, ranges=kind == "xbar-r")
    refused = sum(bool(refusal(kind, items[:, c], subgroup=5)[0]) for c in range(600))
    assert refused <= 18


def test_outliers_of_subgroups_and_counts_are_left_out() -> None:
    random = np.random.default_rng(3)
    groups = subgroups(random, 40, 1, ranges=False)[:, 0]
    groups[7, 1] = 4.0
    judged = make_bank(ChartConfig(kind="xbar-s", signals=M, subgroup=5)).screen(groups)
    assert (judged.cause, np.flatnonzero(~judged.kept).tolist()) == ("", [7])
    samples = counts(random, 40, 1, mean=10.0, size=50)[:, 0]
    samples[11, 0] = 35
    judged = make_bank(ChartConfig(kind="p", signals=M, n=50)).screen(samples)
    assert (judged.cause, np.flatnonzero(~judged.kept).tolist()) == ("", [11])


def test_exact_distributions() -> None:
    """Against scipy: predictive limits of counts, the range's quantiles, chi-square."""
    for found, of, size in ((347, 1500, 50), (3, 2000, 400)):
        low, high = count_limits(found, of, size, 0.01, binomial=True)
        law = stats.betabinom(size, found + 0.5, of - found + 0.5)
        assert law.sf(high) <= 0.01 < law.sf(high - 1) + 0.005
        assert law.cdf(low - 1) <= 0.005
    low, high = count_limits(516, 26, 1.5, 0.01, binomial=False)
    law = stats.nbinom(516.5, 26 / 27.5)
    assert law.cdf(low - 1) <= 0.005 < law.cdf(low)
    assert law.sf(high) <= 0.005 < law.sf(high - 1)
    _, wide = range_bounds(5, 1e6, 0.002)
    assert wide == pytest.approx(stats.studentized_range.ppf(0.999, 5, 1e6), rel=1e-4)
    assert chi2_quantile(0.997, 29) == pytest.approx(stats.chi2.ppf(0.997, 29), rel=1e-5)
