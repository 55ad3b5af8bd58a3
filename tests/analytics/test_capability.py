"""Capability: when an index is stated, by which method, and whether its interval holds what it says."""

from typing import Any

import numpy as np
import pytest
import scipy.stats as st

from analytics.capability import Spec, capability
from analytics.normality import anderson_darling
from analytics.pearson import misfit, moments, pearson
from analytics.stability import stability

SPEC = Spec(-4.0, 4.0, 0.0)


def normal(seed: int, n: int = 200) -> np.ndarray:
    """Stable normal values."""
    return np.random.default_rng(seed).normal(size=n)


def test_intervals_hold_the_truth() -> None:
    """95 % intended, 0.3 sigma off target; three standard errors of 300 runs are 4 %."""
    truth = {"Cp": 4 / 3, "Pp": 4 / 3, "Cpk": 3.7 / 3, "Ppk": 3.7 / 3, "Cpm": 4 / 3 / 1.09**0.5}
    hits: dict[str, list[bool]] = {name: [] for name in truth}
    for seed in range(300):
        found = capability(normal(seed, 80) + 0.3, SPEC)
        for name, index in found.indices.items():
            if found.method == "normal" and name in truth:
                assert index.low is not None
                assert index.high is not None
                hits[name].append(index.low <= truth[name] <= index.high)
    for name, held in hits.items():
        assert len(held) > 250
        assert np.mean(held) == pytest.approx(0.95, abs=0.04), name


def test_interval_by_percentiles_holds_the_truth() -> None:
    truth = (12.0 - st.gamma(4).ppf(0.5)) / (st.gamma(4).ppf(0.99865) - st.gamma(4).ppf(0.5))
    hits = []
    for seed in range(60):
        found = capability(np.random.default_rng(seed).gamma(4.0, size=600), Spec(usl=12.0))
        assert found.method == "pearson"
        index = found.indices["Ppk"]
        assert index.low is not None
        assert index.high is not None
        hits.append(index.low <= truth <= index.high)
    assert np.mean(hits) >= 0.8  # kurtosis of 600 values: the jackknife is a little short


@pytest.mark.parametrize(
    "shape",
    [st.norm(), st.gamma(4), st.gamma(1), st.beta(2, 5), st.beta(0.8, 6), st.uniform(), st.t(12), st.betaprime(4, 12)],
)
def test_pearson_curves_are_the_family(shape: Any) -> None:
    """Normal, gamma, beta, t and inverse beta are Pearson's own: their percentiles come back from four moments."""
    mean, variance, skewness, excess = (float(m) for m in shape.stats("mvsk"))
    curve = pearson(mean, variance**0.5, skewness, excess + 3)
    assert curve is not None
    for p in (0.00135, 0.05, 0.5, 0.95, 0.99865):
        assert curve.quantile(p) == pytest.approx(float(shape.ppf(p)), rel=1e-4, abs=1e-4)
        assert curve.below(float(shape.ppf(p))) == pytest.approx(p, rel=1e-2)


def test_no_pearson_curve() -> None:
    assert pearson(0.0, 1.0, 0.0, 1.1) is None  # two heaps
    assert pearson(0.0, 1.0, 2.0, 4.0) is None  # impossible
    heaps = np.concatenate([normal(1), normal(2) + 9.0])
    curve = pearson(*moments(heaps))
    assert curve is None or misfit(curve, heaps) > 1


def test_anderson_darling_rejects_as_often_as_it_says() -> None:
    p = [anderson_darling(normal(seed, 50)).p for seed in range(600)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert not anderson_darling(np.random.default_rng(1).exponential(size=50)).normal


def test_a_stable_process_is_seldom_called_unstable() -> None:
    rng = np.random.default_rng(4)
    for draw in (rng.normal, rng.exponential):
        unstable = [not stability(np.asarray(draw(size=250))).stable for _ in range(400)]
        assert np.mean(unstable) <= 0.05


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.concatenate([normal(1), normal(2) + 1.5]), "the mean moves"),
        (normal(1) + np.linspace(0, 2, 200), "the mean moves"),
        (np.cumsum(normal(3)) * 0.3, "the mean moves"),
        (np.where(np.arange(200) // 5 == 12, 2.4, normal(4)), "beyond"),
        (np.linspace(0, 1, 30) + 0.05 * normal(5, 30), "the values run up"),
    ],
)
def test_what_is_not_stable_has_performance_alone(values: np.ndarray, words: str) -> None:
    found = capability(values, SPEC)
    assert not found.stability.stable
    assert words in found.stability.words
    assert words in found.not_stated["Cpk"]
    assert "Cpk" not in found.indices
    if found.method != "none":
        assert "Ppk" in found.indices


def test_findings_of_a_chart_overrule() -> None:
    found = capability(normal(1), SPEC, unstable="3 findings of chart ewma")
    assert "3 findings of chart ewma" in found.not_stated["Cp"]
    assert {"Pp", "Ppk"} <= set(found.indices)
    assert {"Cp", "Cpk"} <= set(capability(normal(1), SPEC).indices)


def test_one_sided() -> None:
    found = capability(normal(1), Spec(usl=3.0))
    assert found.indices["Cpk"] == found.indices["Cpu"]
    assert "Cpl" not in found.indices
    assert "Cpl" not in found.not_stated
    assert "both" in found.not_stated["Cp"]
    assert found.beyond == (0, int(np.count_nonzero(normal(1) > 3.0)))
    assert found.beyond_share.low <= found.beyond[1] / 200 <= found.beyond_share.high


def test_not_normal_goes_by_percentiles() -> None:
    """A skewed process: the percentiles are a gamma distribution's, not the mean and three sigmas."""
    x = np.random.default_rng(2).gamma(4.0, size=2500)
    found = capability(x, Spec(0.0, 14.0))
    assert found.method == "pearson"
    assert found.indices["Ppk"].value == pytest.approx(
        min((14 - 3.672) / (12.680 - 3.672), 3.672 / (3.672 - 0.465)), rel=0.08
    )
    assert found.percentiles == pytest.approx((0.465, 3.672, 12.68), abs=0.6)
    assert "Cpm" in found.not_stated
    heaps = np.concatenate([normal(1, 1500), normal(2, 1500) + 9.0])
    few = capability(np.random.default_rng(0).permutation(heaps)[:400], Spec(-5.0, 14.0))
    assert (few.method, few.indices) == ("none", {})
    assert "too few" in few.not_stated["Ppk"]
    assert capability(np.random.default_rng(0).permutation(heaps), Spec(-5.0, 14.0)).method == "observed"


@pytest.mark.parametrize("values", [normal(1, 19), np.tile([1.0, 2.0], 50), np.full(50, 3.0)])
def test_too_little_says_why(values: np.ndarray) -> None:
    found = capability(values, SPEC)
    assert found.indices == {}
    assert found.not_stated["Ppk"] == found.method_words != ""


def test_nonsense_is_refused() -> None:
    for spec in (Spec(), Spec(2.0, 1.0)):
        with pytest.raises(ValueError, match="LSL"):
            capability(normal(1), spec)
