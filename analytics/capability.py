"""Process capability and performance: Cp, Cpk, Cpm, Pp, Ppk with their intervals, or why they are not stated.

Capability (Cp, Cpk, Cpm; sigma within) is stated of a stable process, performance (Pp, Ppk; all values) of any
(ISO 22514-4). The formulas with sigma hold for normal values. Otherwise both come from the percentiles 0.135 %, 50 %
and 99.865 % (ISO 22514-2) of a Pearson curve (Clements 1989), or of the values themselves if there are enough.

Intervals, two-sided at `confidence`:
- Cp, Pp: chi-square distribution of the variance (Kane, J. Quality Technology 18, 1986; ISO 22514-4).
- Cpk, Ppk and one-sided ones: normal approximation, variance 1 / (9 n) + index² / (2 nu) (Bissell, Applied Statistics
  39, 1990; Kushler & Hurley, J. Quality Technology 24, 1992, compare it with exact bounds).
- Cpm: chi-square with (1 + d²)² / (1 / nu + 2 d² / n) degrees of freedom, d the mean's distance from the target in
  sigmas: those of Boyles (J. Quality Technology 23, 1991), where nu = n, for a sigma of fewer.
- Percentiles: jackknife over 30 interleaved groups (Efron & Tibshirani 1993, chapter 11).
"""

import math
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.distributions import chi2_quantile, normal_cdf, normal_quantile, t_quantile
from analytics.normality import Normality, anderson_darling
from analytics.pearson import misfit, moments, pearson
from analytics.stability import Sigma, Stability, Within, stability, within_sigma
from analytics.yields import Bound, exact_bound

Floats = NDArray[np.float64]
Method = Literal["normal", "pearson", "observed", "none"]

FEWEST = 20  # values below which an interval would say nothing
DISTINCT = 5  # different values below which a distribution cannot be seen
ENOUGH = 3_000  # values of which the percentiles are taken as they are: four are beyond 0.135 %
_BLOCKS = 30
_LOW, _HIGH = 0.00135, 0.99865


class Spec(msgspec.Struct, frozen=True):
    """What is asked of a characteristic; at least one limit."""

    lsl: float | None = None
    usl: float | None = None
    target: float | None = None


class Index(msgspec.Struct, frozen=True):
    """An index and its interval; None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


class Capability(msgspec.Struct, frozen=True):
    """What values say of a process against its specification.

    Attributes:
        n: values.
        mean: of all values.
        sigma_within: of the short term; `within` says how it was estimated.
        sigma_overall: of all values (n - 1).
        method: by which formula; `method_words` says why.
        indices: name (Cp, Cpk, Cpl, Cpu, Cpm, Pp, Ppk, Ppl, Ppu) → index.
        not_stated: name → because.
        beyond: values below LSL and above USL.
        beyond_share: both together as a share of n, with its exact interval; it holds for any distribution.
        expected_ppm: parts per million below LSL and above USL by the distribution; None where none fits.
        percentiles: 0.135 %, 50 % and 99.865 %, where the method is by percentiles.
    """

    n: int
    mean: float
    sigma_within: float
    sigma_overall: float
    within: Within
    stability: Stability
    normality: Normality | None
    method: Method
    method_words: str
    indices: dict[str, Index]
    not_stated: dict[str, str]
    beyond: tuple[int, int]
    beyond_share: Bound
    expected_ppm: tuple[float, float] | None
    percentiles: tuple[float, float, float] | None = None


def capability(
    values: Floats,
    spec: Spec,
    *,
    group: int = 1,
    within: Within | None = None,
    confidence: float = 0.95,
    unstable: str = "",
) -> Capability:
    """Judge finite values in the order in which they came.

    Args:
        values: (n,), n >= 2.
        spec: limits and target.
        group: values to a rational subgroup.
        within: how sigma within is estimated; default: moving ranges, or pooled over subgroups.
        confidence: of the intervals.
        unstable: why the process is known to be unstable, such as findings of its chart; empty: judged here.

    Raises:
        ValueError: if there is no limit, or LSL is not below USL, or there are fewer than two values.
    """
    if spec.lsl is None and spec.usl is None:
        raise ValueError("there is neither LSL nor USL")
    if spec.lsl is not None and spec.usl is not None and spec.lsl >= spec.usl:
        raise ValueError(f"LSL {spec.lsl:.6g} is not below USL {spec.usl:.6g}")
    if len(values) < 2:
        raise ValueError(f"{len(values)} values show no spread")
    n, mean, overall = len(values), float(np.mean(values)), float(np.std(values, ddof=1))
    how: Within = within or ("moving-range" if group == 1 else "pooled")
    short = within_sigma(values, group, how) if n >= 2 * group else Sigma(0.0, 0.0)
    beyond = (
        0 if spec.lsl is None else int(np.count_nonzero(values < spec.lsl)),
        0 if spec.usl is None else int(np.count_nonzero(values > spec.usl)),
    )
    nothing = _too_little(values)
    if nothing:
        return Capability(
            n, mean, short.value, overall, how, Stability(False, nothing), None, "none", nothing, {},
            dict.fromkeys(("Cp", "Cpk", "Cpm", "Pp", "Ppk"), nothing), beyond,
            exact_bound(sum(beyond), n, confidence), None,
        )  # fmt: skip
    stable = Stability(False, unstable) if unstable else stability(values, group)
    normal = anderson_darling(values)
    if normal.normal:
        method: Method = "normal"
        words, points = normal.words, None
        found = normal_indices("P", spec, mean, Sigma(overall, n - 1.0), n, confidence)
        if short.value > 0:
            found |= normal_indices("C", spec, mean, short, n, confidence)
            found |= _cpm(spec, mean, short, n, confidence)
        tails: tuple[float, float] | None = _normal_tails(spec, mean, overall)
    else:
        method, words, points, tails = _by_percentiles(values, spec)
        words = f"{normal.words}: {words}"
        found = {} if points is None else _percentile_indices(values, spec, points, method, confidence)
    missing = _missing(spec, found, stable, method, words)
    kept = {name: index for name, index in found.items() if name not in missing}
    return Capability(
        n, mean, short.value, overall, how, stable, normal, method, words, kept, missing, beyond,
        exact_bound(sum(beyond), n, confidence), tails, points,
    )  # fmt: skip


def _too_little(values: Floats) -> str:
    n, distinct = len(values), len(np.unique(values))
    if n < FEWEST:
        return f"{n} values are too few; {FEWEST} are the least, 100 are good"
    if distinct < DISTINCT:
        return f"{n} values show {distinct} different ones: the measurement is too coarse, or stuck"
    return ""


def _missing(
    spec: Spec, found: dict[str, Index], stable: Stability, method: Method, words: str
) -> dict[str, str]:  # fmt: skip
    """Name → why it is not stated."""
    missing: dict[str, str] = {}
    for name in ("Cp", "Cpk", "Cpl", "Cpu", "Cpm", "Pp", "Ppk", "Ppl", "Ppu"):
        if (name.endswith("l") and spec.lsl is None) or (name.endswith("u") and spec.usl is None):
            continue  # nobody expects it
        if name in ("Cp", "Pp", "Cpm") and (spec.lsl is None or spec.usl is None):
            missing[name] = "it needs both LSL and USL"
        elif name == "Cpm" and spec.target is None:
            missing[name] = "no target is given"
        elif name.startswith("C") and not stable.stable:
            missing[name] = f"the process is not stable: {stable.words}"
        elif method == "none":
            missing[name] = words
        elif name not in found:
            missing[name] = "its formula needs normal values"
    return missing


def normal_indices(
    letter: Literal["C", "P"], spec: Spec, mean: float, sigma: Sigma, n: int, confidence: float = 0.95
) -> dict[str, Index]:
    """Cp, Cpl, Cpu and Cpk (or Pp, …) of normal values.

    Args:
        letter: what the names begin with.
        spec: limits.
        mean: of the process.
        sigma: of the process, with its degrees of freedom.
        n: values that the mean comes from.
        confidence: of the intervals.

    >>> normal_indices("C", Spec(0.0, 12.0), 6.0, Sigma(1.0, 99.0), 100)["Cp"].value
    2.0
    """
    found: dict[str, Index] = {}
    sides: list[Index] = []
    z = normal_quantile(0.5 + confidence / 2)
    for name, limit in (("l", spec.lsl), ("u", spec.usl)):
        if limit is not None:
            value = (mean - limit if name == "l" else limit - mean) / (3 * sigma.value)
            half = z * math.sqrt(1 / (9 * n) + value * value / (2 * sigma.nu))
            found[f"{letter}p{name}"] = Index(value, value - half, value + half)
            sides.append(found[f"{letter}p{name}"])
    found[f"{letter}pk"] = min(sides, key=lambda side: side.value)
    if spec.lsl is not None and spec.usl is not None:
        value = (spec.usl - spec.lsl) / (6 * sigma.value)
        found[f"{letter}p"] = Index(value, *chi2_interval(value, sigma.nu, confidence))
    return found


def chi2_interval(value: float, nu: float, confidence: float) -> tuple[float, float]:
    """The interval of an index of which 1 / index² is distributed as chi-square / nu."""
    low, high = (chi2_quantile(p, nu) for p in (0.5 - confidence / 2, 0.5 + confidence / 2))
    return value * math.sqrt(low / nu), value * math.sqrt(high / nu)


def _cpm(spec: Spec, mean: float, sigma: Sigma, n: int, confidence: float) -> dict[str, Index]:
    """Cpm of Chan, Cheng & Spiring (J. Quality Technology 20, 1988)."""
    if spec.lsl is None or spec.usl is None or spec.target is None:
        return {}
    off = ((mean - spec.target) / sigma.value) ** 2
    value = (spec.usl - spec.lsl) / (6 * sigma.value * math.sqrt(1 + off))
    nu = (1 + off) ** 2 / (1 / sigma.nu + 2 * off / n)
    return {"Cpm": Index(value, *chi2_interval(value, nu, confidence))}


def _normal_tails(spec: Spec, mean: float, sigma: float) -> tuple[float, float]:
    ends = [math.inf if spec.lsl is None else (mean - spec.lsl) / sigma]
    ends.append(math.inf if spec.usl is None else (spec.usl - mean) / sigma)
    low, high = (1e6 * normal_cdf(-np.array(ends))).tolist()
    return low, high


def _by_percentiles(
    values: Floats, spec: Spec
) -> tuple[Method, str, tuple[float, float, float] | None, tuple[float, float] | None]:
    """Method, why, percentiles, and ppm beyond the limits."""
    curve = pearson(*moments(values))
    fit = math.inf if curve is None else misfit(curve, values)
    if curve is not None and fit <= 1:
        low, middle, high = (curve.quantile(p) for p in (_LOW, 0.5, _HIGH))
        tails = (
            0.0 if spec.lsl is None else 1e6 * curve.below(spec.lsl),
            0.0 if spec.usl is None else 1e6 * (1 - curve.below(spec.usl)),
        )
        return "pearson", f"percentiles of a Pearson curve (distance {fit:.2f} of what chance explains)", (
            low, middle, high,
        ), tails  # fmt: skip
    why = "no Pearson curve has their shape" if curve is None else f"no Pearson curve fits ({fit:.1f} times too far)"
    if len(values) >= ENOUGH:
        low, middle, high = np.quantile(values, [_LOW, 0.5, _HIGH]).tolist()
        return "observed", f"{why}; percentiles of the {len(values)} values themselves", (low, middle, high), None
    return "none", f"{why}, and {len(values)} values are too few for percentiles of their own ({ENOUGH})", None, None


def _percentile_indices(
    values: Floats, spec: Spec, points: tuple[float, float, float], method: Method, confidence: float
) -> dict[str, Index]:
    """Under both letters: which of them may be stated is decided by stability."""
    whole = _ratios(spec, points)
    found = {name: Index(value) for name, value in whole.items()}
    if method == "pearson" and len(values) >= 3 * _BLOCKS:
        block = np.arange(len(values)) % _BLOCKS
        each = []
        for left in range(_BLOCKS):
            curve = pearson(*moments(values[block != left]))
            if curve is None:
                break
            each.append(_ratios(spec, (curve.quantile(_LOW), curve.quantile(0.5), curve.quantile(_HIGH))))
        if len(each) == _BLOCKS:
            t = t_quantile(0.5 + confidence / 2, _BLOCKS - 1)
            for name, value in whole.items():
                some = np.array([ratios[name] for ratios in each])
                half = t * math.sqrt((_BLOCKS - 1) / _BLOCKS * float(np.sum((some - some.mean()) ** 2)))
                found[name] = Index(value, value - half, value + half)
    return {letter + name: index for letter in "CP" for name, index in found.items()}


def _ratios(spec: Spec, points: tuple[float, float, float]) -> dict[str, float]:
    low, middle, high = points
    found: dict[str, float] = {}
    if spec.lsl is not None:
        found["pl"] = (middle - spec.lsl) / (middle - low)
    if spec.usl is not None:
        found["pu"] = (spec.usl - middle) / (high - middle)
    found["pk"] = min(found.values())
    if spec.lsl is not None and spec.usl is not None:
        found["p"] = (spec.usl - spec.lsl) / (high - low)
    return found
