"""Why T2 is large: each channel's own distance from its mean, and its distance from what the others let expect.

The decomposition of Mason, Young & Tracy (Journal of Quality Technology 27 (1995) 99-108) splits T2 into p terms that
add up: T2 = T2(1) + T2(2 | 1) + T2(3 | 1, 2) + … for any order of the channels. Of its p 2^(p-1) different terms two a
channel say most: the first, unconditional one (a level that is wrong), and the last, given all others (a relation that
is broken).

>>> precision = np.linalg.inv(np.array([[1.0, 0.9], [0.9, 1.0]]))
>>> z = np.array([1.5, -1.5])
>>> [round(t, 2) for t in unconditional(z).tolist()], [round(t, 2) for t in conditional(precision, z).tolist()]
([2.25, 2.25], [42.75, 42.75])
>>> [round(e, 2) for e in expected(precision, z).tolist()]
[-1.35, 1.35]
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analytics.charts.vector import dropped_terms

Floats = NDArray[np.float64]

FAR = 3.0  # sigmas


def unconditional(z: Floats) -> Floats:
    """Each channel's term alone, (p,): its squared distance from its mean in sigmas; `z` is standardised."""
    return z * z


def conditional(precision: Floats, z: Floats) -> Floats:
    """Each channel's term given all others, (p,)."""
    return dropped_terms(precision, z)


def expected(precision: Floats, z: Floats) -> Floats:
    """What the others let expect of each channel, (p,), standardised: its conditional mean."""
    return np.asarray(z - precision @ z / np.maximum(np.diag(precision), 1e-300))


def split(covariance: Floats, z: Floats, order: Sequence[int]) -> Floats:
    """The p terms of one order of the channels, T2(i | those before it), (p,); they add up to T2."""
    terms, before = [], 0.0
    for k in range(1, len(order) + 1):
        some = list(order[:k])
        total = float(z[some] @ np.linalg.solve(covariance[np.ix_(some, some)], z[some]))
        terms.append(total - before)
        before = total
    return np.array(terms)


def words(name: str, value: float, z: float, others: float, term: float, expectation: float, unit: str) -> str:
    """One channel in words.

    Args:
        name: the channel.
        value: what it says, in its unit.
        z: the same in sigmas from its mean.
        others: what the others let expect, in its unit.
        term: its conditional term.
        expectation: `others` in sigmas from its mean.
        unit: with a leading blank, or empty.
    """
    said = f"{name} {value:.4g}{unit}"
    level = f" is {abs(z):.1f} sigma {'above' if z > 0 else 'below'} its mean"
    if term < FAR**2:
        return said + level if abs(z) >= FAR else said
    relation = f"the others let expect {others:.4g}{unit}"
    if abs(z) < FAR or abs(expectation) >= FAR:
        return f"{said} does not fit the others: {relation}"
    return f"{said}{level}, where {relation}"
