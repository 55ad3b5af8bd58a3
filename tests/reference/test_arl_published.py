"""Average run lengths against published tables.

Sources: Lucas & Saccucci, Technometrics 32 (1990), table 3; Crowder, Journal of Quality Technology 21 (1989); SAS/QC
(EWMAARL); Champ & Woodall, Technometrics 29 (1987). The other rows are from the
integral equation, to 2 digits.
"""

import numpy as np
import pytest

from analytics.arl import ewma_arl, individuals_arl, run_rules_arl
from analytics.limits import design_ewma, design_individuals
from analytics.rules import rule_mask

SHIFTS = np.array([0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4])


@pytest.mark.parametrize(
    ("lam", "width", "expected"),
    [
        (0.5, 3.071, [500, 255, 88.8, 35.9, 17.5, 6.53, 3.63, 2.50, 1.93, 1.34]),
        (0.03, 2.437, [500, 76.7, 29.3, 17.6, 12.6, 8.07, 5.99, 4.80, 4.03, 3.11]),
    ],
)
def test_lucas_and_saccucci(lam: float, width: float, expected: list[float]) -> None:
    assert ewma_arl(lam, width, SHIFTS) == pytest.approx(expected, rel=2e-3, abs=6e-3)


@pytest.mark.parametrize(
    ("lam", "width", "expected"),
    [
        (0.5, 3.071, [499.91, 254.78, 88.80, 35.91, 17.48, 6.53, 3.63, 2.50, 1.93, 1.34]),
        (0.4, 3.054, [499.95, 223.73, 71.20, 28.42, 14.26, 5.87, 3.52, 2.54, 2.02, 1.44]),
        (0.25, 2.998, [499.84, 170.30, 48.29, 20.11, 11.14, 5.46, 3.61, 2.74, 2.26, 1.73]),
        (0.2, 2.962, [499.74, 150.22, 41.76, 18.15, 10.54, 5.50, 3.74, 2.88, 2.38, 1.86]),
        (0.1, 2.814, [499.58, 106.32, 31.30, 15.85, 10.33, 6.08, 4.36, 3.44, 2.87, 2.19]),
        (0.05, 2.615, [499.93, 84.01, 28.76, 16.37, 11.38, 7.11, 5.22, 4.17, 3.50, 2.69]),
    ],
)
def test_ewma_table(lam: float, width: float, expected: list[float]) -> None:
    assert ewma_arl(lam, width, SHIFTS) == pytest.approx(expected, abs=0.0051)


def test_sas_qc() -> None:
    assert float(ewma_arl(0.25, 3, 1)) == pytest.approx(11.154267016, abs=5e-9)


@pytest.mark.parametrize(("lam", "width"), [(0.05, 2.32), (0.1, 2.55), (0.15, 2.65), (0.2, 2.72), (0.25, 2.76)])
def test_crowder_1989_design_for_250(lam: float, width: float) -> None:
    assert design_ewma(0, lam, 250).width / np.sqrt(lam / (2 - lam)) == pytest.approx(width, abs=0.011)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("1", [370.40, 308.43, 43.89, 6.30, 2.00]),
        ("12", [225.44, 177.56, 20.01, 3.65, 1.68]),
        ("13", [166.05, 120.70, 12.66, 3.68, 1.89]),
        ("14", [152.73, 110.52, 14.58, 4.89, 1.99]),
        ("1234", [91.75, 66.80, 9.22, 3.13, 1.67]),
    ],
)
def test_champ_and_woodall(rules: str, expected: list[float]) -> None:
    found = run_rules_arl(rule_mask(rules), 1.0, np.array([0, 0.2, 1, 2, 3]))
    assert found == pytest.approx(expected, abs=0.0051)


def test_individuals_at_three_sigma() -> None:
    assert float(individuals_arl(3.0)) == pytest.approx(370.398, abs=1e-3)
    assert design_individuals(0).width == pytest.approx(3.0)


def test_eight_in_a_row_alone() -> None:
    """A run of 8 on either side of the median of independent values: 2**8 - 1."""
    assert float(run_rules_arl(rule_mask("4"))) == pytest.approx(255.0)
