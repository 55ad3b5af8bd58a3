"""Which channels of a baseline a multivariate chart may use, decided from the baseline alone.

Left out are channels that are missing in more than a tenth of the vectors, that do not vary, or that drift: more than
half of their variance lies between the tenths of the baseline. Such a channel (a temperature that warms up for hours)
has not shown yet where it stays, so limits learned from it would call its further way a fault.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRESENT = 0.9  # least share of the vectors that hold the channel
DRIFT_SHARE = 0.5
_TENTHS = 10


class Channels(msgspec.Struct, frozen=True, eq=False):
    """What is used.

    Attributes:
        kept: columns of the baseline that are used, ascending, (k,).
        dropped: column → why it is not.
    """

    kept: NDArray[np.intp]
    dropped: dict[int, str]


def choose(baseline: Floats, *, drop_drifting: bool) -> Channels:
    """Choose among the columns of a baseline (n, p), NaN where a value is missing.

    >>> x = np.column_stack([np.tile([0.0, 1.0], 50), np.arange(100.0), np.ones(100)])
    >>> choose(x, drop_drifting=True).dropped
    {1: 'drifts: 99 % of its variance lies between the tenths of the baseline', 2: 'does not vary'}
    """
    dropped: dict[int, str] = {}
    for j in range(baseline.shape[1]):
        column = baseline[:, j]
        there = column[np.isfinite(column)]
        if len(there) < PRESENT * len(column) or len(there) < 2 * _TENTHS:
            dropped[j] = f"is missing in {len(column) - len(there)} of {len(column)} vectors"
        elif np.ptp(there) <= 1e-12 * np.max(np.abs(there)):
            dropped[j] = "does not vary"
        elif drop_drifting and (share := drift_share(there)) > DRIFT_SHARE:
            dropped[j] = f"drifts: {share:.0%} of its variance lies between the tenths of the baseline".replace(
                "%", " %"
            )
    kept = [j for j in range(baseline.shape[1]) if j not in dropped]
    return Channels(np.array(kept, np.intp), dropped)


def drift_share(values: Floats) -> float:
    """Share of the variance of finite values, in order, that lies between their tenths (0 to 1).

    About 1/(n/10) for independent values; near 1 for a slow walk.
    """
    means = np.array([tenth.mean() for tenth in np.array_split(values, _TENTHS)])
    sizes = np.array([len(tenth) for tenth in np.array_split(values, _TENTHS)])
    between = float(np.sum(sizes * (means - values.mean()) ** 2)) / len(values)
    return between / float(np.var(values))


def fill(baseline: Floats) -> Floats:
    """The baseline with gaps filled by straight lines between neighbours in time, so that its dynamics stay."""
    out = baseline.copy()
    rows = np.arange(len(out))
    for j in range(out.shape[1]):
        there = np.isfinite(out[:, j])
        if not there.all():
            out[:, j] = np.interp(rows, rows[there], out[there, j])
    return out
