"""CUSUM against published run lengths and worked examples.

Sources: Lucas & Crosier, Technometrics 24 (1982), tables 1 and 2, as quoted by the R package spc; Brook & Evans,
Biometrika 59 (1972); SAS/QC, CUSUMARL; Montgomery, Introduction to Statistical Quality Control, table 9.1;
NIST/SEMATECH e-Handbook 6.3.2.3.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from analytics.arl import cusum_arl, cusum_side_arl
from analytics.charts.cusum import CusumBank
from analytics.config import ChartConfig
from analytics.limits import Design, Estimate, design_cusum

SHIFTS = np.array([0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5])
TABLE_9_1 = [
    9.45, 7.99, 9.29, 11.66, 12.16, 10.18, 8.04, 11.46, 9.20, 10.34, 9.03, 11.47, 10.51, 9.40, 10.08,
    9.37, 10.62, 10.31, 8.52, 10.84, 10.90, 9.33, 12.29, 11.50, 10.60, 11.08, 10.38, 11.62, 11.31, 10.52,
]  # fmt: skip
NIST = [
    324.925, 324.675, 324.725, 324.350, 325.350, 325.225, 324.125, 324.525, 325.225, 324.600,
    324.625, 325.150, 328.325, 327.250, 327.829, 328.500, 326.675, 327.775, 326.875, 328.350,
]  # fmt: skip


@pytest.mark.parametrize(
    ("h", "start", "published"),
    [
        (4.0, 0.0, [168, 74.2, 26.6, 13.3, 8.38, 4.75, 3.34, 2.62, 2.19, 1.71, 1.31]),
        (4.0, 0.5, [149, 62.7, 20.1, 8.97, 5.29, 2.86, 2.01, 1.59, 1.32, 1.07, 1.01]),
        (5.0, 0.0, [465.44, 139.49, 38.00, 17.05, 10.38, 5.75, 4.01, 3.11, 2.57, 2.01, 1.69]),
    ],
)
def test_lucas_and_crosier(h: float, start: float, published: list[float]) -> None:
    found = cusum_arl(0.5, h, SHIFTS, head_start=start)
    assert found == pytest.approx(published, rel=2.5e-3, abs=6e-3)


@pytest.mark.parametrize(
    ("h", "start", "computed"),
    [
        (4.0, 0.0, [167.68, 74.22, 26.63, 13.29, 8.38, 4.75, 3.34, 2.62, 2.19, 1.71, 1.31]),
        (4.0, 0.5, [148.70, 62.70, 20.06, 8.97, 5.29, 2.86, 2.01, 1.59, 1.33, 1.07, 1.01]),
        (5.0, 0.0, [465.44, 139.49, 38.00, 17.05, 10.38, 5.75, 4.01, 3.11, 2.57, 2.01, 1.69]),
    ],
)
def test_to_two_digits(h: float, start: float, computed: list[float]) -> None:
    assert cusum_arl(0.5, h, SHIFTS, head_start=start) == pytest.approx(computed, abs=0.0051)


def test_others() -> None:
    assert float(cusum_arl(0.5, 4.77)) == pytest.approx(368.56, abs=0.005)
    one_sided, _ = cusum_side_arl(0.5, 3.0, np.array([0.0, 1.5]))
    assert one_sided == pytest.approx([117.60, 3.75], abs=0.0051)  # Brook & Evans print 117.59
    one_sided, _ = cusum_side_arl(0.25, 8.0, 2.5)
    assert float(one_sided) == pytest.approx(4.1500836225, abs=2e-7)  # SAS/QC
    assert float(cusum_arl(0.25, 8.0, 2.5)) == pytest.approx(4.1500826715, abs=2e-6)


def test_design_is_the_table_backwards() -> None:
    assert design_cusum(0, 0.5, 167.68).width == pytest.approx(4.0, abs=1e-3)
    assert design_cusum(0, 0.5, 148.70, head_start=0.5).width == pytest.approx(4.0, abs=1e-3)


def path(bank: CusumBank, values: list[float]) -> tuple[list[float], list[bool]]:
    found = [bank.update(np.array([0]), np.array([x])) for x in values]
    return [float(f.statistic[0]) for f in found], [bool(f.violation[0]) for f in found]


def bank_of(target: float, sigma: float, h: float, shift: float = 1.0) -> CusumBank:
    bank = CusumBank(ChartConfig(kind="cusum", signals=("m/x",), shift=shift))
    bank.grow(1)
    bank.freeze(0, Estimate(target, sigma, 0), Design(h, 0.0))
    return bank


def test_montgomery_table_9_1() -> None:
    """k 0.5, h 5: C+ first above 5 at 29, where it is 5.28, then 5.30; a run of 7, so the shift lies before 23."""
    statistic, alarms = path(bank_of(10.0, 1.0, 5.0), TABLE_9_1)
    assert [i + 1 for i, alarm in enumerate(alarms) if alarm] == [29, 30]
    assert statistic[28:] == pytest.approx([5.28, 5.30], abs=1e-9)
    assert min(statistic) == pytest.approx(-1.77, abs=0.011)
    above: NDArray[np.bool_] = np.array(statistic[22:29]) > 0
    assert above.all()


def test_nist_6_3_2_3() -> None:
    """Target 325, k 0.3175, h 4.1959: S_hi from the 13th, and a signal from the 14th on."""
    bank = bank_of(325.0, 0.635, 4.1959 / 0.635)
    statistic, alarms = path(bank, NIST)
    assert statistic[12:] == pytest.approx([3.01, 4.94, 7.45, 10.63, 11.99, 14.45, 16.01, 19.04], abs=0.006)
    assert alarms.index(True) == 13
