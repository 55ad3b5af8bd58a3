"""Is a measured value surely within its specification, surely outside, or too near to a limit to say?

ISO 14253-1:2017 and JCGM 106:2012: conformity is proven where the value is inside the specification by a guard band,
nonconformity where it is outside by one, and in between nothing is proven. At a single limit, a guard band of 1.645
standard uncertainties leaves a chance of 5 % to be wrong.
"""

import math
from typing import Literal

COVERAGE = 2.0  # standard uncertainties in an expanded one, as on a calibration certificate
FACTOR = 1.6448536269514722  # standard uncertainties in a guard band: 5 % at a single limit

Zone = Literal["inside", "uncertain", "outside"]


def guard_band(uncertainty: float) -> float:
    """Width of the guard band for an expanded uncertainty (k = 2), in its unit.

    >>> round(guard_band(0.02), 5)
    0.01645
    """
    return FACTOR / COVERAGE * uncertainty


def zone(value: float, lsl: float | None, usl: float | None, uncertainty: float) -> Zone:
    """Where a value lies; without uncertainty nothing is uncertain.

    >>> zone(9.98, None, 10.0, 0.02), zone(9.99, None, 10.0, 0.02), zone(10.02, None, 10.0, 0.02)
    ('inside', 'uncertain', 'outside')
    """
    below = -math.inf if lsl is None else lsl - value
    above = -math.inf if usl is None else value - usl
    over = max(below, above)
    band = guard_band(uncertainty)
    if over > band or (band == 0 and over > 0):
        return "outside"
    return "inside" if over <= -band else "uncertain"
