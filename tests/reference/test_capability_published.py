"""Capability against published numbers, and through capstat-core 0.4.3, an independent implementation.

Sources: the R package qcc 3.0, vignette "A quick tour of qcc" (processCapability on pistonrings, samples 1-25; its
intervals of Cpl and Cpu have 90 %, the others 95 %, and count n - 1 degrees of freedom); the R package SixSigma (tests
of ss.ca.cp and ss.ca.cpk on ss.data.ca, by the standard deviation of all values); NIST StRD, NumAcc4.
"""

from statistics import NormalDist
from typing import Any

import capstat_core
import numpy as np
import pytest

from analytics.capability import Spec, capability, chi2_interval, normal_indices
from analytics.normality import anderson_darling
from analytics.stability import Sigma, within_sigma

# inside diameter of piston rings, micrometres above 74 mm, 25 samples of 5 (qcc: pistonrings, trial)
RINGS = 74 + np.array([
    30, 2, 19, -8, 8, -5, -8, 1, 11, 4, -12, 24, 21, 5, 2, 2, -4, -7, 15, 9, -8, 7, 15, -11, 14, 9, -6, -3, -15, -7,
    -5, 6, -6, 0, 5, -15, 3, -7, 15, -12, 8, -5, 9, 5, 4, -2, 0, -10, 7, -5, -6, -2, -6, -5, -10, 4, 0, 7, 0, -4,
    -17, 2, -2, -3, 12, 6, -33, -6, 0, -16, 12, 14, -2, -1, 7, 0, -16, 5, -2, -4, -6, 12, -14, 5, 7, 6, 10, 18, 3, 0,
    -16, 2, 3, 5, -3, 0, 10, 13, 20, 3, -12, 1, 9, 5, -4, 4, -1, -10, 6, 9, 10, -11, -10, 9, 14, 15, 8, -7, 0, 10,
    -18, -16, -5, 17, 13,
]) / 1000  # fmt: skip
# SixSigma's ss.data.ca: volume of 20 bottles, cl
BOTTLES = [
    755.81,
    750.54,
    751.05,
    749.52,
    749.21,
    748.38,
    748.11,
    753.07,
    749.56,
    750.08,
    747.16,
    747.53,
    749.22,
    746.76,
    747.64,
    750.46,
    749.27,
    750.33,
    750.26,
    751.29,
]


def qcc(lsl: float, usl: float, target: float | None = None) -> dict[str, float]:
    """All indices as values, by mean range / d2."""
    found = capability(RINGS, Spec(lsl, usl, target), group=5, within="range")
    assert found.stability.stable
    assert found.method == "normal"
    return {name: index.value for name, index in found.indices.items()}


@pytest.mark.parametrize(
    ("spec", "printed"),
    [
        ((73.95, 74.05, 74.0), {"Cp": 1.703, "Cpl": 1.743, "Cpu": 1.663, "Cpk": 1.663, "Cpm": 1.691}),
        ((73.95, 74.05, 74.02), {"Cpm": 0.786}),
        ((73.99, 74.01, 74.0), {"Cp": 0.341, "Cpk": 0.301, "Cpm": 0.338}),
        ((73.99, 74.1, 74.045), {"Cp": 1.874, "Cpk": 0.381, "Cpm": 0.408}),
    ],
)
def test_qcc_indices(spec: tuple[float, float, float], printed: dict[str, float]) -> None:
    found = qcc(*spec)
    assert {name: found[name] for name in printed} == pytest.approx(printed, abs=5.1e-4)


def test_qcc_intervals() -> None:
    spec, sigma = Spec(73.95, 74.05, 74.0), within_sigma(RINGS, 5, "range")
    as_qcc = Sigma(sigma.value, len(RINGS) - 1.0)
    mean = float(RINGS.mean())
    at_95 = normal_indices("C", spec, mean, as_qcc, len(RINGS), 0.95)
    at_90 = normal_indices("C", spec, mean, as_qcc, len(RINGS), 0.90)
    for index, low, high in (
        (at_95["Cp"], 1.491, 1.915), (at_95["Cpk"], 1.448, 1.878),
        (at_90["Cpl"], 1.555, 1.932), (at_90["Cpu"], 1.483, 1.844),
    ):  # fmt: skip
        assert (index.low, index.high) == pytest.approx((low, high), abs=6e-4)
    # qcc takes n (1 + d²) / (1 + 2 d²) degrees of freedom for Cpm, without Boyles's square: its interval is too wide
    cpm = capability(RINGS, Spec(73.95, 74.05, 74.02), group=5, within="range").indices["Cpm"].value
    off = ((mean - 74.02) / sigma.value) ** 2
    assert chi2_interval(cpm, 125 * (1 + off) / (1 + 2 * off), 0.95) == pytest.approx((0.656, 0.915), abs=6e-4)
    assert sigma.value == pytest.approx(0.009785039, rel=1e-4)
    assert sigma.nu == pytest.approx(0.906 * 100, rel=0.01)  # fewer than n - 1: our intervals are wider than qcc's


def test_qcc_expected_and_observed() -> None:
    """Expected: 13 % below and 18 % above, from sigma within; observed: 12 % and 16 %."""
    spec = Spec(73.99, 74.01)
    found = capability(RINGS, spec, group=5, within="range")
    assert found.beyond == (15, 20)
    assert np.round(np.array(found.beyond) / 125, 2).tolist() == [0.12, 0.16]
    indices = normal_indices("C", spec, found.mean, Sigma(found.sigma_within, 124.0), 125)
    shares = [NormalDist().cdf(-3 * indices[name].value) for name in ("Cpl", "Cpu")]
    assert [round(s, 2) for s in shares] == [0.13, 0.18]


def test_sixsigma_bottles() -> None:
    """Their Cp takes the standard deviation of all values: our Pp."""
    found = capability(np.array(BOTTLES), Spec(740.0, 760.0))
    assert found.indices["Pp"].value == pytest.approx(1.58413633507089, rel=1e-12)
    assert found.indices["Ppk"].value == pytest.approx(1.54651309711296, rel=1e-12)
    assert 3 * found.indices["Ppk"].value == pytest.approx(4.63953929133888, rel=1e-12)


def test_nist_numacc4() -> None:
    """1001 values 10000000.2, then .1 and .3 in turn: mean 10000000.2, standard deviation 0.1 exactly."""
    values = np.array([10000000.2] + [10000000.1, 10000000.3] * 500)
    found = capability(values, Spec(9999999.0, 10000001.0))
    assert found.mean == pytest.approx(10000000.2, rel=1e-15)
    assert found.sigma_overall == pytest.approx(0.1, rel=1e-7)
    assert found.not_stated["Ppk"].startswith("1001 values show 3 different ones")


@pytest.mark.parametrize(("group", "ours", "theirs"), [
    (1, "moving-range", "moving_range"), (5, "range", "rbar_d2"), (5, "std", "sbar_c4"),
])  # fmt: skip
def test_capstat(group: int, ours: Any, theirs: Any) -> None:
    x = np.random.default_rng(5).normal(10.0, 0.5, 150)
    found = capability(x, Spec(8.0, 12.5, 10.2), group=group, within=ours)
    report = capstat_core.capability(
        x.reshape(-1, group) if group > 1 else x, lsl=8.0, usl=12.5, target=10.2, within_method=theirs
    )
    for name in ("Cp", "Cpl", "Cpu", "Cpk", "Cpm", "Pp", "Ppl", "Ppu", "Ppk"):
        assert found.indices[name].value == pytest.approx(getattr(report, name.lower()), rel=1e-9), name
    pooled = within_sigma(x, 5, "pooled")  # capstat divides by c4(101)
    other = capstat_core.capability(x.reshape(-1, 5), lsl=8.0, usl=12.5, within_method="pooled").sigma_within
    assert pooled.value == pytest.approx(other * capstat_core.c4(121), rel=1e-6)


def test_anderson_darling_as_capstat() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=50 + 20 * seed) if seed % 2 else rng.gamma(2.0 + seed, size=60)
        theirs = capstat_core.anderson_darling(x)
        ours = anderson_darling(x)
        assert ours.p == pytest.approx(theirs.p_value, rel=1e-6)
        assert ours.normal == theirs.normal
