"""Average run lengths: how many values pass, on average, until a chart alarms.

Individuals: geometric. EWMA, CUSUM: integral equations, by Gauss-Legendre quadrature (EWMA: Crowder, Technometrics 29
(1987)). Run rules: the exact Markov chain of Champ & Woodall, Technometrics 29 (1987). Everything is in units of the
true sigma; run lengths are zero-state (the chart starts fresh). Scalars and arrays of one shape may be mixed.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analytics import nelson, rules
from analytics.distributions import normal_cdf, normal_pdf

Floats = NDArray[np.float64]

_ZONES = np.array([-4, -3, -2, -1, 1, 2, 3, 4], np.int8)

_SOLVED_AT_ONCE = 100_000  # elements of matrices; elimination holds some five copies of them


def individuals_arl(width: ArrayLike, shift: ArrayLike = 0.0) -> Floats:
    """ARL of one value against centre +/- `width`, with the mean off by `shift`.

    >>> round(float(individuals_arl(3.0)), 1)
    370.4
    """
    w, d = np.broadcast_arrays(np.asarray(width, float), np.asarray(shift, float))
    return np.asarray(1.0 / (normal_cdf(-w - d) + normal_cdf(d - w)))


def ewma_arl(lam: float, width: ArrayLike, shift: ArrayLike = 0.0, *, nodes: int = 0) -> Floats:
    """ARL of an EWMA that starts at the centre, against centre +/- `width` * sqrt(lam / (2 - lam)).

    Args:
        lam: smoothing constant, 0 < lam <= 1.
        width: L, in sigmas of the steady EWMA.
        shift: how far the mean is off, in sigma.
        nodes: quadrature nodes; 0 chooses enough for about seven digits.

    >>> round(float(ewma_arl(0.25, 3.0, 1.0)), 6)
    11.154267
    """
    if lam == 1.0:
        return individuals_arl(width, shift)
    w, d = np.broadcast_arrays(np.asarray(width, float), np.asarray(shift, float))
    h = w * np.sqrt(lam / (2 - lam))
    count = nodes or int(24 + 4 * float(np.max(h)) / lam)
    x, weight = _legendre(count)
    points = h[..., None] * x
    # run length from each node: 1 + the integral of (run length from where the next value leads) x (its density)
    to, start = points[..., None, :], points[..., :, None]
    density = normal_pdf((to - (1 - lam) * start) / lam - d[..., None, None]) / lam
    kernel = density * (h[..., None] * weight)[..., None, :]
    lengths = _lengths(kernel)
    first = normal_pdf(points / lam - d[..., None]) / lam * h[..., None] * weight
    return np.asarray(1.0 + np.sum(first * lengths, axis=-1))


def cusum_arl(
    reference: ArrayLike, decision: ArrayLike, shift: ArrayLike = 0.0, *, head_start: float = 0.0, nodes: int = 0
) -> Floats:
    """ARL of a two-sided tabular CUSUM: C+ = max(0, C+ + x - k), C- = max(0, C- - x - k), alarm above h.

    One side is the integral equation of Goel & Wu, Technometrics 13 (1971), by Gauss-Legendre quadrature with an atom
    at zero; the two sides are joined as by Lucas & Crosier, Technometrics 24 (1982), which is exact.

    Args:
        reference: k, in sigmas.
        decision: h, in sigmas.
        shift: how far the mean is off, in sigmas.
        head_start: share of h that both sides start at; 0.5 is the fast initial response.
        nodes: quadrature nodes; 0 chooses enough for about seven digits.

    >>> round(float(cusum_arl(0.5, 5.0)), 1), round(float(cusum_arl(0.5, 4.0, 1.0, head_start=0.5)), 2)
    (465.4, 5.29)
    """
    k, h, d = np.broadcast_arrays(*(np.asarray(v, float) for v in (reference, decision, shift)))
    up, up_started = cusum_side_arl(k, h, d, head_start=head_start, nodes=nodes)
    down, down_started = cusum_side_arl(k, h, -d, head_start=head_start, nodes=nodes)
    return np.asarray((up_started * down + down_started * up - up * down) / (up + down))


def cusum_side_arl(
    reference: ArrayLike, decision: ArrayLike, shift: ArrayLike = 0.0, *, head_start: float = 0.0, nodes: int = 0
) -> tuple[Floats, Floats]:
    """ARL of the upper side alone: started at zero, and at the head start. Arguments as for `cusum_arl`."""
    k, h, d = np.broadcast_arrays(*(np.asarray(v, float) for v in (reference, decision, shift)))
    x, weight = _legendre(nodes or min(int(20 + 4 * float(np.max(h))), 120))
    to, w = 0.5 * h[..., None] * (x + 1), 0.5 * h[..., None] * weight
    zero = np.zeros((*h.shape, 1))
    start = np.concatenate([zero, to, zero + head_start * h[..., None]], axis=-1)  # the last one is read off only
    off = (k - d)[..., None]
    into_zero = normal_cdf(off - start)[..., None]
    kernel = normal_pdf(to[..., None, :] + off[..., None] - start[..., :, None]) * w[..., None, :]
    stay = np.concatenate([into_zero, kernel], axis=-1)
    lengths = _lengths(stay[..., :-1, :])
    return lengths[..., 0], np.asarray(1.0 + np.sum(stay[..., -1, :] * lengths, axis=-1))


def nelson_arl(mask: int, unit: ArrayLike = 1.0, shift: ArrayLike = 0.0) -> Floats:
    """ARL of an individuals chart with Nelson's tests.

    Tests 1, 2, 5 and 6: the exact chain. The others are added as rates, as if they alarmed for themselves: the sum is a
    few percent too cautious (the true ARL is longer, by less than 7 % for any set).

    Args:
        mask: which tests, see `analytics.nelson.rule_mask`.
        unit: width of one zone, in sigmas.
        shift: how far the mean is off, in sigmas.

    >>> round(float(nelson_arl(0b1)), 1), round(float(nelson_arl(0b11)), 1)
    (370.4, 216.7)
    """
    u, d = np.broadcast_arrays(np.asarray(unit, float), np.asarray(shift, float))
    zoned = (mask & 1) | (mask >> 3 & 0b110) | (mask & 2) << 2
    rate = 1.0 / run_rules_arl(zoned, u, d, run_length=nelson.ONE_SIDE) if zoned else np.zeros(u.shape)
    rate = rate + (mask >> 2 & 1) / nelson.STEADY_ARL + (mask >> 3 & 1) / nelson.ALTERNATING_ARL
    above, below = normal_cdf(d - u), normal_cdf(-u - d)
    if mask >> 6 & 1:
        rate = rate + _run_rate(1 - above - below, nelson.WITHIN)
    if mask >> 7 & 1:
        one_sided = above**nelson.OUTSIDE + below**nelson.OUTSIDE
        run = (above + below) ** nelson.OUTSIDE
        rate = rate + _run_rate(above + below, nelson.OUTSIDE) * (1 - one_sided / np.maximum(run, 1e-300))
    return np.asarray(1.0 / rate)


def _run_rate(chance: Floats, length: int) -> Floats:
    """1 / (trials until `length` successes in a row) (Feller, An Introduction to Probability, XIII.7)."""
    run = chance**length
    return np.asarray((1 - chance) * run / np.maximum(1 - run, 1e-300))


def run_rules_arl(
    mask: int, unit: ArrayLike = 1.0, shift: ArrayLike = 0.0, *, run_length: int = rules.RUN_LENGTH
) -> Floats:
    """ARL of an individuals chart with Western Electric rules.

    Args:
        mask: which rules, see `analytics.rules.rule_mask`.
        unit: width of one zone; 1 is the textbook's sigma, so that rule 1 stands at 3.
        shift: how far the mean is off, in sigma.
        run_length: values in a row that break rule 4.

    >>> round(float(run_rules_arl(0b1111)), 2)
    91.75
    """
    u, d = np.broadcast_arrays(np.asarray(unit, float), np.asarray(shift, float))
    if mask == 1:
        return individuals_arl(3 * u, d)
    edges = u[..., None] * np.array([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]) - d[..., None]
    below = normal_cdf(edges)
    chance = np.concatenate([below[..., :1], np.diff(below, axis=-1), normal_cdf(-edges[..., -1:])], axis=-1)
    leads_to = _chain(mask, run_length)
    size = len(leads_to)
    stay = np.zeros((*u.shape, size, size))
    for zone in range(len(_ZONES)):
        state = np.flatnonzero(leads_to[:, zone] >= 0)
        stay[..., state, leads_to[state, zone]] += chance[..., zone, None]
    # states far from fresh first: few others lead there, so that elimination fills little in
    return np.asarray(_lengths(stay[..., ::-1, ::-1])[..., -1])


def _lengths(stay: Floats) -> Floats:
    """Solve (I - stay) x = 1, for stacked matrices whose rows sum to less than one; some at a time, to be small."""
    size = stay.shape[-1]
    stack = stay.reshape(-1, size, size)
    most = max(1, _SOLVED_AT_ONCE // (size * size))
    parts = [_solve(stack[i : i + most]) for i in range(0, len(stack), most)]
    return np.concatenate(parts).reshape(stay.shape[:-1]) if parts else np.empty(stay.shape[:-1])


def _solve(stay: Floats) -> Floats:
    """The same for one stack.

    Gauss without pivoting, which such matrices do not need, and only where something stands: chains of run rules are
    mostly empty. LAPACK would be shorter, but its last bits depend on its build and its number of threads, and its
    threads fight with an agent's other work.
    """
    size = stay.shape[-1]
    whole = np.concatenate([np.eye(size) - stay, np.ones((*stay.shape[:-1], 1))], axis=-1)
    a = np.ascontiguousarray(np.moveaxis(whole.reshape(-1, size, size + 1), 0, -1))  # row, column, stack
    there = np.any(a != 0, axis=-1)
    whole_rows = bool(there.all())  # integral equations: slices are ten times as fast as indices

    def filled(flags: NDArray[np.bool_], start: int) -> slice | NDArray[np.intp]:
        return slice(start, start + len(flags)) if whole_rows else np.flatnonzero(flags) + start

    for i in range(size - 1):
        below, right = filled(there[i + 1 :, i], i + 1), filled(there[i, i + 1 :], i + 1)
        if isinstance(below, slice) or isinstance(right, slice):
            a[below, right] -= (a[below, i] / a[i, i])[:, None] * a[i, right]
        elif len(below):
            at = np.ix_(below, right)
            a[at] -= (a[below, i] / a[i, i])[:, None] * a[i, right]
            there[at] = True
    x = np.empty((size, a.shape[-1]))
    for i in range(size - 1, -1, -1):
        right = filled(there[i, i + 1 : size], i + 1)
        x[i] = (a[i, -1] - np.sum(a[i, right] * x[right], axis=0)) / a[i, i]
    return np.moveaxis(x, 0, -1).reshape(stay.shape[:-1])


@lru_cache(maxsize=32)
def _chain(mask: int, run_length: int) -> NDArray[np.intp]:
    """Transitions (states, zones) → next state, -1 for an alarm. State 0 is fresh.

    Found by walking the very rules that the charts run, so that the two cannot differ. Only the memory that the rules
    in `mask` need is kept, which keeps the chain small.
    """
    keep = np.zeros(6, bool)
    keep[0:2], keep[2:4], keep[4:6] = bool(mask & 2), bool(mask & 4), bool(mask & 8)
    found: dict[bytes, int] = {bytes(6): 0}
    todo = [bytes(6)]
    table: list[list[int]] = []
    for code in todo:  # grows while it is walked
        state = np.repeat(np.frombuffer(code, np.uint8)[None, :], len(_ZONES), axis=0)
        after, fired = rules.step(state, _ZONES, run_length)
        after = np.where(keep, after, 0).astype(np.uint8)
        row: list[int] = []
        for next_state, alarm in zip(after, fired, strict=True):
            if alarm & mask:
                row.append(-1)
                continue
            name = next_state.tobytes()
            if name not in found:
                found[name] = len(found)
                todo.append(name)
            row.append(found[name])
        table.append(row)
    return _merged(np.array(table, np.intp))


def _merged(table: NDArray[np.intp]) -> NDArray[np.intp]:
    """The same chain with states that behave alike made one (partition refinement, Moore 1956)."""
    group = np.zeros(len(table), np.intp)
    while True:
        ahead = np.where(table >= 0, group[table], -1)
        _, first, finer = np.unique(np.column_stack([group, ahead]), axis=0, return_index=True, return_inverse=True)
        finer = finer.ravel()
        if len(first) == group.max() + 1:
            break
        group = finer
    rank = np.empty(len(first), np.intp)
    rank[np.argsort(first)] = np.arange(len(first))  # keeps the fresh state first
    chosen = table[np.sort(first)]
    return np.where(chosen >= 0, rank[finer[chosen]], -1)


@lru_cache(maxsize=64)
def _legendre(count: int) -> tuple[Any, Any]:
    x, weight = np.polynomial.legendre.leggauss(count)
    return x, weight
