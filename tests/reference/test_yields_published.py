"""Yields against published numbers.

Sources: the R package SixSigma, ss.ca.yield (defects 3, 5, 12 and rework 1, 2, 4 of 1915 items); the conversion of
sigma levels to defects per million with a shift of 1.5, as every table of Six Sigma prints it.
"""

import pytest
import scipy.stats as st

from analytics.yields import (
    Step,
    dpmo,
    dpmo_of_level,
    dpu,
    exact_bound,
    final_yield,
    first_pass_yield,
    rolled_throughput_yield,
    sigma_level,
    upper_bound,
)

STEPS = [Step(1915, 3, 1), Step(1915, 5, 2), Step(1915, 12, 4)]


def test_sixsigma() -> None:
    """Their FTY counts all operations as one; what they call DPU is the number of defects."""
    assert final_yield(STEPS) == pytest.approx(0.9895561, abs=5e-8)
    assert first_pass_yield(Step(1915, 20, 7)) == pytest.approx(0.9859008, abs=5e-8)
    assert rolled_throughput_yield(STEPS) == pytest.approx(0.9859563, abs=5e-8)
    assert dpu(20, 1915) * 1915 == pytest.approx(20)
    assert dpmo(20, 1915) == pytest.approx(10443.86, abs=5e-3)


@pytest.mark.parametrize(("level", "printed"), [(3, 66807.2), (4, 6209.67), (5, 232.63), (6, 3.40)])
def test_sigma_levels(level: float, printed: float) -> None:
    assert dpmo_of_level(level) == pytest.approx(printed, abs=0.05 if printed > 1000 else 5e-3)
    assert sigma_level(dpmo_of_level(level)) == pytest.approx(level, rel=1e-9)
    assert sigma_level(dpmo_of_level(level), 0.0) == pytest.approx(level - 1.5)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 7), (3, 3000), (250, 500), (10, 10), (29_990, 30_000)])
def test_exact_bounds_as_scipy(hits: int, n: int) -> None:
    ours, theirs = exact_bound(hits, n), st.binomtest(hits, n).proportion_ci(0.95, "exact")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)
    one_sided = st.binomtest(hits, n, alternative="less").proportion_ci(0.95, "exact").high
    assert upper_bound(hits, n) == pytest.approx(one_sided, rel=1e-9)


def test_rule_of_three() -> None:
    for n in (100, 3000, 10**6):
        assert upper_bound(0, n) == pytest.approx(3 / n, rel=0.02)
        assert upper_bound(0, n) < 3 / n


@pytest.mark.parametrize(("hits", "n"), [(-1, 3), (4, 3), (0, 0)])
def test_no_share(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        exact_bound(hits, n)
