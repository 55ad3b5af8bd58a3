"""Measurement systems: gauge R&R by analysis of variance, bias, linearity, and what they leave for the uncertainty.

AIAG, Measurement Systems Analysis, 4th edition (2010), chapter III; variance components as in Montgomery, Introduction
to Statistical Quality Control, 8.7.2.
"""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.distributions import f_upper_tail, t_quantile, t_upper_tail

Floats = NDArray[np.float64]

POOL_ABOVE = 0.05  # p-value of the interaction above which it is pooled with repeatability; AIAG allows up to 0.25
STUDY = 6.0  # standard deviations of a study variation: 99.73 %
GOOD, CONDITIONAL = 0.10, 0.30  # shares of %GRR: below the first good, above the second not acceptable
FEWEST_CATEGORIES = 5


class Row(msgspec.Struct, frozen=True):
    """A line of the table of variances."""

    df: int
    ss: float
    f: float | None = None
    p: float | None = None

    @property
    def ms(self) -> float:
        """Mean square."""
        return self.ss / self.df


class Gauge(msgspec.Struct, frozen=True):
    """What a crossed study says.

    Attributes:
        full: the table with the interaction: part, operator, interaction, error, total.
        reduced: the table without it, where it was pooled; else the same.
        pooled: whether the interaction was pooled.
        variance: repeatability, reproducibility, operator, interaction, grr, part, total → variance.
        tolerance: USL - LSL, if given.
    """

    full: dict[str, Row]
    reduced: dict[str, Row]
    pooled: bool
    variance: dict[str, float]
    tolerance: float | None = None

    def sd(self, name: str) -> float:
        """Standard deviation of a component."""
        return math.sqrt(self.variance[name])

    def contribution(self, name: str) -> float:
        """Share of the total variance."""
        return self.variance[name] / self.variance["total"]

    def study(self, name: str) -> float:
        """Share of the total standard deviation: %GRR for `grr`."""
        return self.sd(name) / self.sd("total")

    def of_tolerance(self, name: str) -> float | None:
        """Share of the tolerance that six standard deviations take; None without one."""
        return None if self.tolerance is None else STUDY * self.sd(name) / self.tolerance

    @property
    def ndc(self) -> int:
        """Number of distinct categories, at least 1: 1.41 times part over GRR, cut off."""
        grr = self.sd("grr")
        return 10**6 if grr == 0 else max(int(math.sqrt(2) * self.sd("part") / grr), 1)

    @property
    def words(self) -> str:
        """The verdict of AIAG's bands, with its figure."""
        share = self.study("grr")
        verdict = "good" if share < GOOD else "conditional" if share <= CONDITIONAL else "not acceptable"
        few = "" if self.ndc >= FEWEST_CATEGORIES else f" (fewer than {FEWEST_CATEGORIES})"
        return f"GRR is {share:.1%} of the study variation: {verdict}; {self.ndc} distinct categories{few}"


def gauge(data: Floats, *, tolerance: float | None = None, pool_above: float = POOL_ABOVE) -> Gauge:
    """Crossed gauge R&R, operators and parts random.

    Args:
        data: (parts, operators, trials), at least two of each.
        tolerance: USL - LSL.
        pool_above: the interaction is pooled with repeatability where its p-value is above this.

    Raises:
        ValueError: if there are fewer, or a value is missing, or nothing varies.

    >>> data = np.array([[[1.0, 1.1], [1.2, 1.0]], [[3.0, 3.1], [3.0, 3.2]], [[5.1, 5.0], [5.2, 5.3]]])
    >>> gauge(data).ndc
    25
    """
    if data.ndim != 3 or min(data.shape) < 2:
        raise ValueError(f"a study of {' x '.join(map(str, data.shape))} is no (parts, operators, trials), two of each")
    if not np.all(np.isfinite(data)):
        raise ValueError(f"{np.count_nonzero(~np.isfinite(data))} values are missing: measure those again")
    p, o, t = data.shape
    mean = data.mean()
    parts, operators, cells = data.mean(axis=(1, 2)), data.mean(axis=(0, 2)), data.mean(axis=2)
    ss = {
        "part": o * t * _squares(parts - mean),
        "operator": p * t * _squares(operators - mean),
        "interaction": t * _squares(cells - parts[:, None] - operators + mean),
        "error": _squares(data - cells[:, :, None]),
    }
    df = {"part": p - 1, "operator": o - 1, "interaction": (p - 1) * (o - 1), "error": p * o * (t - 1)}
    if not sum(ss.values()) > 0:
        raise ValueError("all values are equal: the instrument does not resolve these parts")
    full = _table(ss, df, over="interaction")
    chance = full["interaction"].p
    pooled = chance is not None and chance > pool_above
    if pooled:
        kept = {name: ss[name] for name in ("part", "operator")} | {"error": ss["interaction"] + ss["error"]}
        reduced = _table(kept, df | {"error": df["interaction"] + df["error"]}, over="error")
    else:
        reduced = full
    repeat = reduced["error"].ms
    base = repeat if pooled else reduced["interaction"].ms
    v = {
        "repeatability": repeat,
        "operator": max((reduced["operator"].ms - base) / (p * t), 0.0),
        "interaction": 0.0 if pooled else max((base - repeat) / t, 0.0),
        "part": max((reduced["part"].ms - base) / (o * t), 0.0),
    }
    v["reproducibility"] = v["operator"] + v["interaction"]
    v["grr"] = v["repeatability"] + v["reproducibility"]
    v["total"] = v["grr"] + v["part"]
    return Gauge(full, reduced, pooled, v, tolerance)


def _squares(x: Floats) -> float:
    return float(np.sum(x * x))


def _table(ss: dict[str, float], df: dict[str, int], *, over: str) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for name, squares in ss.items():
        against = None if name == "error" else ("error" if name == "interaction" else over)
        if against is None:
            rows[name] = Row(df[name], squares)
            continue
        ms = ss[against] / df[against]
        f = squares / df[name] / ms if ms > 0 else math.inf
        rows[name] = Row(df[name], squares, f, f_upper_tail(f, df[name], df[against]) if ms > 0 else 0.0)
    rows["total"] = Row(sum(row.df for row in rows.values()), sum(ss.values()))
    return rows


class Bias(msgspec.Struct, frozen=True):
    """Mean of repeated measurements of one reference against its value.

    Attributes:
        bias: mean - reference.
        low: of its interval.
        high: of its interval.
        repeatability: standard deviation.
        t: bias in standard errors.
        p: two-sided chance of such a bias where there is none.
    """

    bias: float
    low: float
    high: float
    repeatability: float
    t: float
    p: float

    @property
    def acceptable(self) -> bool:
        """Whether zero lies within the interval (AIAG III.B)."""
        return self.low <= 0 <= self.high


def bias(values: Floats, reference: float, confidence: float = 0.95) -> Bias:
    """Judge n >= 2 measurements of one reference part by the t test (AIAG III.B, independent samples).

    Raises:
        ValueError: for fewer values, or equal ones.

    >>> round(bias(np.array([5.1, 4.9, 5.2, 5.0, 5.3]), 5.0).bias, 3)
    0.1
    """
    n = len(values)
    sigma = float(np.std(values, ddof=1)) if n > 1 else 0.0
    if not sigma > 0:
        raise ValueError(f"{n} values of the reference {reference:.6g} do not vary: their bias has no interval")
    off, error = float(np.mean(values)) - reference, sigma / math.sqrt(n)
    half = t_quantile(0.5 + confidence / 2, n - 1) * error
    return Bias(off, off - half, off + half, sigma, off / error, 2 * t_upper_tail(abs(off / error), n - 1))


class Linearity(msgspec.Struct, frozen=True):
    """How bias depends on the size of what is measured: bias = intercept + slope * reference.

    Attributes:
        slope: of the line.
        intercept: of the line.
        r2: share of the variance of bias that the line explains.
        slope_p: two-sided chance of such a slope where there is none.
        intercept_p: the same for the intercept.
        biases: reference → mean bias.
        sigma: standard deviation about the line (repeatability, if the line holds).
    """

    slope: float
    intercept: float
    r2: float
    slope_p: float
    intercept_p: float
    biases: dict[float, float]
    sigma: float

    def linearity(self, process: float) -> float:
        """Change of bias over the process variation (six standard deviations), in the unit."""
        return abs(self.slope) * process

    def acceptable(self, level: float = 0.05) -> bool:
        """Whether neither slope nor intercept is beyond chance (AIAG III.B)."""
        return self.slope_p > level and self.intercept_p > level


def linearity(references: Floats, values: Floats) -> Linearity:
    """Regress bias on reference, value by value.

    Args:
        references: value of the part that each measurement is of, (n,), n >= 3, two different ones or more.
        values: measurements, (n,).

    Raises:
        ValueError: for fewer.

    >>> found = linearity(np.repeat([2.0, 4.0, 6.0], 2), np.array([2.1, 2.2, 4.0, 4.1, 5.9, 6.0]))
    >>> round(found.slope, 3), round(found.intercept, 3)
    (-0.05, 0.25)
    """
    n = len(values)
    if n < 3 or len(np.unique(references)) < 2:
        raise ValueError(f"{n} measurements of {len(np.unique(references))} references say nothing about linearity")
    off = values - references
    centre = float(np.mean(references))
    sxx = _squares(references - centre)
    slope = float(np.sum((references - centre) * off)) / sxx
    intercept = float(np.mean(off)) - slope * centre
    left = _squares(off - intercept - slope * references)
    total = _squares(off - np.mean(off))
    sigma = math.sqrt(left / (n - 2))
    errors = sigma / math.sqrt(sxx), sigma * math.sqrt(1 / n + centre**2 / sxx)
    chance = [
        2 * t_upper_tail(abs(value) / error, n - 2) if error > 0 else float(value == 0)
        for value, error in zip((slope, intercept), errors, strict=True)
    ]
    each = {float(r): float(np.mean(off[references == r])) for r in np.unique(references)}
    return Linearity(slope, intercept, 1 - left / total if total > 0 else 1.0, chance[0], chance[1], each, sigma)


def expanded_uncertainty(grr: float, bias_left: float = 0.0, calibration: float = 0.0, coverage: float = 2.0) -> float:
    """Expanded uncertainty of a measurement in use: what `uncertainty` of a `[[signal]]` asks for.

    The root of the sum of squares (ISO/IEC Guide 98-3), times the coverage factor.

    Args:
        grr: standard deviation of the gauge R&R.
        bias_left: bias that is not corrected; taken as the half width of a rectangle (ISO 22514-7).
        calibration: standard uncertainty of the reference.
        coverage: 2 for about 95 %.

    >>> expanded_uncertainty(3.0, calibration=4.0)
    10.0
    """
    return coverage * math.sqrt(grr**2 + bias_left**2 / 3 + calibration**2)
