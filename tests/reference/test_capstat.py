"""The same data through capstat-core 0.4.3, an independent implementation, where it has the method.

It has no run lengths, no attributes charts, no multivariate charts, and no designed limits: textbook lines, run rules,
EWMA and CUSUM are compared.
"""

import capstat_core
import numpy as np
import pytest

from analytics import nelson, rules
from analytics.charts.cusum import CusumBank
from analytics.charts.xbar import textbook_means, textbook_sigma, textbook_spreads
from analytics.config import ChartConfig
from analytics.constants import c4, d2, d3
from analytics.limits import Design, Estimate, moving_range_estimate, textbook_ewma, textbook_individuals

X = np.random.default_rng(21).normal(10.0, 0.5, size=(30, 5))
ONE = np.random.default_rng(22).normal(10.0, 0.5, size=400)


def test_constants() -> None:
    for n in range(2, 26):
        ours = (c4(n), d2(n), d3(n))
        assert ours == pytest.approx((capstat_core.c4(n), capstat_core.d2(n), capstat_core.d3(n)), rel=1e-7)


@pytest.mark.parametrize("ranges", [True, False])
def test_charts_of_subgroups(ranges: bool) -> None:
    theirs = (capstat_core.xbar_r_chart if ranges else capstat_core.xbar_s_chart)(X)
    spread = np.ptp(X, axis=1) if ranges else X.std(axis=1, ddof=1)
    items = np.column_stack([X.mean(axis=1), spread, np.full(30, 5.0)])
    sigma = textbook_sigma(items, ranges=ranges)
    means, spreads = textbook_means(float(X.mean()), sigma, 5), textbook_spreads(sigma, 5, ranges=ranges)
    for ours, chart in ((means, theirs.location), (spreads, theirs.dispersion)):
        limits = chart.limits
        assert tuple(ours) == pytest.approx((limits.lower, limits.center, limits.upper), rel=1e-9)


def test_individuals() -> None:
    limits = capstat_core.i_mr_chart(ONE).location.limits
    assert textbook_individuals(moving_range_estimate(ONE)) == pytest.approx((limits.lower, limits.upper), rel=1e-9)


def fired(x: np.ndarray, family: str) -> dict[int, set[int]]:
    """Rule → rows at which it fires, by our step functions, for the chart that capstat judges."""
    estimate = moving_range_estimate(x)
    found: dict[int, set[int]] = {}
    state = (nelson if family == "nelson" else rules).new_state(1)
    previous = np.array([np.nan])
    for i, v in enumerate(x):
        value = np.array([v])
        zone = rules.zones(value, np.array([estimate.center]), np.array([estimate.sigma]))
        if family == "nelson":
            state, now = nelson.step(state, zone, value, previous)
        else:
            state, now = rules.step(state, zone)
        previous = value
        for rule in range(8):
            if int(now[0]) >> rule & 1:
                found.setdefault(rule + 1, set()).add(i)
    return found


@pytest.mark.parametrize("family", ["nelson", "western-electric"])
def test_run_rules(family: str) -> None:
    """Each of its violations ends where ours fires."""
    x = ONE.copy()
    x[100:112] += 0.6  # a run
    x[200:215] = 10.0 + np.tile([0.3, -0.3], 8)[:15]  # alternating
    x[300:308] = np.linspace(9.5, 10.6, 8)  # a trend
    chart = capstat_core.i_mr_chart(x).location
    judge = capstat_core.nelson_rules if family == "nelson" else capstat_core.western_electric_rules
    theirs: dict[int, set[int]] = {}
    for violation in judge(chart):
        theirs.setdefault(violation.rule, set()).add(violation.point)
    ours = fired(x, family)
    assert len(theirs) >= 3
    for rule in range(1, 9 if family == "nelson" else 5):
        assert ours.get(rule, set()) == theirs.get(rule, set()), rule


def test_ewma_and_cusum() -> None:
    ewma = capstat_core.ewma_chart(ONE, target=10.0, sigma=0.5, lmbda=0.2, L=2.7)
    ours = [textbook_ewma(Estimate(10.0, 0.5, 0), 0.2, 2.7, i) for i in range(1, len(ONE) + 1)]
    assert [lcl for lcl, _ in ours] == pytest.approx(list(ewma.lower), rel=1e-9)
    cusum = capstat_core.cusum_chart(ONE, target=10.0, sigma=0.5, k=0.5, h=8.0)
    bank = CusumBank(ChartConfig(kind="cusum", signals=("m/x",)))
    bank.grow(1)
    bank.freeze(0, Estimate(10.0, 0.5, 0), Design(8.0, 0.0))
    found = [float(bank.update(np.array([0]), np.array([v])).statistic[0]) for v in ONE]
    larger = [-low if low > high else high for high, low in zip(cusum.upper, cusum.lower, strict=True)]
    assert found == pytest.approx(larger, abs=1e-9)
