"""Charts of counts against published numbers.

Sources: the R package qcc 3.0, vignette "A quick tour of qcc" (orangejuice, orangejuice2, circuit, pcmanufact);
Montgomery, Introduction to Statistical Quality Control, examples 7.1 and 7.3 to 7.5 and table 7.4, as printed by the R
package qicharts2.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from analytics.charts.attributes import laney_sigma_z, standardised, textbook_counts

# nonconforming cans in samples of 50: 30 samples, then 64 on a new machine (qcc: orangejuice; Montgomery 7.1 to 7.3)
CANS = [12, 15, 8, 10, 4, 7, 16, 9, 14, 10, 5, 6, 17, 12, 22, 8, 10, 5, 13, 11, 20, 18, 24, 15, 9, 12, 7, 13, 9, 6]
NEW_CANS = [
    9, 6, 12, 5, 6, 4, 6, 3, 7, 6, 2, 4, 3, 6, 5, 4, 8, 5, 6, 7, 5, 6, 3, 5, 8, 7, 5, 6, 4, 5, 2, 3, 4, 7, 6, 5, 5, 3,
    7, 9, 6, 10, 4, 3, 5, 8, 11, 9, 7, 3, 5, 2, 1, 4, 5, 3, 7, 6, 4, 4, 6, 8, 5, 6,
]  # fmt: skip
# nonconformities on units of 100 printed circuit boards (qcc: circuit; Montgomery 7.8)
BOARDS = [21, 24, 16, 12, 15, 5, 28, 20, 31, 25, 20, 24, 16, 19, 10, 17, 13, 22, 18, 39, 30, 24, 16, 19, 17, 15]
PERSONAL_COMPUTERS = [10, 12, 8, 14, 10, 16, 11, 7, 10, 15, 9, 5, 7, 11, 12, 6, 8, 10, 7, 5]  # on 5 each
ORDERS = [
    (12, 100), (8, 80), (6, 80), (9, 100), (10, 110), (12, 110), (11, 100), (16, 100), (10, 90), (6, 90), (20, 110),
    (15, 120), (9, 120), (8, 120), (6, 110), (8, 80), (10, 80), (7, 80), (5, 90), (8, 100), (5, 100), (8, 100),
    (10, 100), (6, 90), (9, 90),
]  # fmt: skip
SHIPMENTS = [2, 3, 8, 1, 1, 4, 1, 4, 5, 1, 8, 2, 4, 3, 4, 1, 8, 3, 7, 4]  # errors in a week's 50
CLOTH = [(14, 500), (12, 400), (20, 650), (11, 500), (7, 475), (10, 500), (21, 600), (16, 525), (19, 600), (23, 625)]


def samples(counts: Any, size: float, *, without: tuple[int, ...] = ()) -> NDArray[np.float64]:
    """(count, size) of each sample; `without` are numbers from 1."""
    kept = [c for i, c in enumerate(counts, 1) if i not in without]
    return np.array([(c, size) for c in kept], float)


@pytest.mark.parametrize(
    ("kind", "items", "size", "center", "sigma", "lcl", "ucl"),
    [
        ("p", samples(CANS, 50), 50, 0.2313333, 0.05963526, 0.05242755, 0.4102391),
        ("p", samples(CANS, 50, without=(15, 23)), 50, 0.215, 0.05809905, 0.04070284, 0.3892972),
        ("np", samples(CANS, 50), 50, 11.56667, 2.981763, 2.621377, 20.51196),
        ("p", samples(NEW_CANS[:24], 50), 50, 0.1108333, 0.04439579, 0, 0.2440207),
        ("c", samples(BOARDS, 1), 1, 19.84615, 4.454902, 6.481447, 33.21086),
        ("c", samples(BOARDS, 1, without=(6, 20)), 1, 19.66667, 4.434712, 6.362532, 32.9708),
        ("u", samples(BOARDS, 100, without=(6, 20)), 100, 0.1966667, 0.04434712, 0.06362532, 0.329708),
        ("u", samples(PERSONAL_COMPUTERS, 5), 5, 1.93, 0.6212890, 0.06613305, 3.793867),
    ],
)
def test_qcc(kind: str, items: Any, size: float, center: float, sigma: float, lcl: float, ucl: float) -> None:
    """qcc prints sigma of a u chart for one unit; here it is that of the plotted point."""
    lines = textbook_counts(items, kind, size)
    assert lines.center == pytest.approx(center, rel=1e-6)
    assert (lines.ucl - lines.center) / 3 == pytest.approx(sigma, rel=1e-6)
    assert (lines.lcl, lines.ucl) == pytest.approx((lcl, ucl), rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "items", "size", "expected"),
    [
        ("p", samples(CANS, 50, without=(15, 23)), 50, (0.04070284, 0.215, 0.38929716)),
        ("p", samples(NEW_CANS, 50), 50, (0, 0.1096875, 0.24226996)),
        ("p", np.array(ORDERS, float), 100, (0.00733469, 0.09551020, 0.18368571)),
        ("p", np.array(ORDERS, float), 90, (0.00256506, 0.09551020, 0.18845535)),
        ("c", samples(BOARDS, 1, without=(6, 20)), 1, (6.36253197, 19.66666667, 32.97080136)),
        ("u", samples(SHIPMENTS, 50), 50, (0, 0.074, 0.18941230)),
        ("u", np.array(CLOTH, float) / [1, 50], 10, (0.29147393, 1.42325581, 2.55503770)),
        ("u", np.array(CLOTH, float) / [1, 50], 12.5, (0.41095932, 1.42325581, 2.43555231)),
    ],
)
def test_montgomery(kind: str, items: Any, size: float, expected: tuple[float, float, float]) -> None:
    assert textbook_counts(items, kind, size) == pytest.approx(expected, abs=6e-9)


def test_laney() -> None:
    """Laney, Quality Engineering 14 (2002): limits of a p chart times sigma_z, the moving range of its z."""
    items = np.array(ORDERS, float)
    z = standardised(items, binomial=True)
    by_hand = np.mean(np.abs(np.diff(z))) / 1.128379
    assert laney_sigma_z(items, binomial=True) == pytest.approx(by_hand, rel=1e-6)
    plain, wide = textbook_counts(items, "p", 100), textbook_counts(items, "laney-p", 100)
    assert (wide.ucl - wide.center) / (plain.ucl - plain.center) == pytest.approx(by_hand, rel=1e-6)
