"""Measurement systems against published numbers, and through capstat-core 0.4.3, an independent implementation.

Sources: the R package SixSigma, ss.rr on ss.data.rr (time1; three prototypes, three operators, three runs; tolerance
0.1); AIAG, Measurement Systems Analysis, the example of linearity with five parts of twelve trials (its data from
memory; that they give its printed line shows that they are right).
"""

import capstat_core
import numpy as np
import pytest

from analytics.msa import bias, gauge, linearity

# prototype, operator, run
TIMES = np.array(
    [
        [[1.27, 0.9, 1.09], [1.34, 1.32, 1.27], [1.09, 1.26, 1.09]],
        [[1.12, 1.09, 1.15], [1.24, 1.0, 1.14], [1.48, 1.15, 1.15]],
        [[1.73, 1.28, 1.77], [1.64, 1.65, 1.77], [1.64, 1.44, 1.68]],
    ]
)
# reference → trials
PARTS = {
    2.0: [2.7, 2.5, 2.4, 2.5, 2.7, 2.3, 2.5, 2.5, 2.4, 2.4, 2.6, 2.4],
    4.0: [5.1, 3.9, 4.2, 5.0, 3.8, 3.9, 3.9, 3.9, 3.9, 4.0, 4.1, 3.8],
    6.0: [5.8, 5.7, 5.9, 5.9, 6.0, 6.1, 6.0, 6.1, 6.4, 6.3, 6.0, 6.1],
    8.0: [7.6, 7.7, 7.8, 7.7, 7.8, 7.8, 7.8, 7.7, 7.8, 7.5, 7.6, 7.7],
    10.0: [9.1, 9.3, 9.5, 9.3, 9.4, 9.5, 9.5, 9.5, 9.6, 9.2, 9.3, 9.4],
}


def test_sixsigma_table_of_variances() -> None:
    found = gauge(TIMES, tolerance=0.1)
    ss = {name: row.ss for name, row in found.full.items()}
    printed = {"part": 1.2007, "operator": 0.0529, "interaction": 0.0834, "error": 0.3854, "total": 1.7225}
    assert ss == pytest.approx(printed, abs=5.1e-5)
    rows = [found.full[name] for name in ("part", "operator", "interaction")]
    assert [row.f for row in rows] == pytest.approx([28.797, 1.270, 0.974], abs=5.1e-4)
    assert [row.p for row in rows] == pytest.approx([0.00422, 0.37415, 0.44619], abs=5.1e-6)
    assert found.pooled
    assert [found.reduced[name].f for name in ("part", "operator")] == pytest.approx([28.17, 1.24], abs=5.1e-3)


def test_sixsigma_components() -> None:
    found = gauge(TIMES, tolerance=0.1)
    names = ("grr", "repeatability", "reproducibility", "part", "total")
    assert [found.variance[n] for n in names] == pytest.approx([0.0219, 0.0213, 0.0006, 0.0643, 0.0862], abs=5.1e-5)
    shares = [0.2538, 0.2471, 0.0067, 0.7462]
    assert [found.contribution(n) for n in names[:4]] == pytest.approx(shares, abs=5.1e-5)
    sds = [0.14792656, 0.14597518, 0.02394813, 0.25365123, 0.29363449]
    assert [found.sd(n) for n in names] == pytest.approx(sds, abs=5.1e-9)
    assert [found.study(n) for n in names[:4]] == pytest.approx([0.5038, 0.4971, 0.0816, 0.8638], abs=5.1e-5)
    assert found.of_tolerance("grr") == pytest.approx(8.8756, abs=5.1e-5)
    assert found.ndc == 2
    assert found.words == "GRR is 50.4% of the study variation: not acceptable; 2 distinct categories (fewer than 5)"


@pytest.mark.parametrize("interaction", [0.0, 0.6])
def test_gauge_as_capstat(interaction: float) -> None:
    rng = np.random.default_rng(9)
    data = 10 + rng.normal(size=(10, 1, 1)) + 0.2 * rng.normal(size=(1, 3, 1))
    data = data + interaction * rng.normal(size=(10, 3, 1)) + 0.3 * rng.normal(size=(10, 3, 3))
    ours, theirs = gauge(data, tolerance=8.0), capstat_core.gage_rr(data, tolerance=8.0, interaction_alpha=0.05)
    assert ours.pooled == (not theirs.interaction_included) == (interaction == 0.0)
    components = {
        "repeatability": theirs.var_repeatability, "operator": theirs.var_operator, "part": theirs.var_part,
        "interaction": theirs.var_interaction, "grr": theirs.var_gage_rr, "total": theirs.var_total,
    }  # fmt: skip
    assert {name: ours.variance[name] for name in components} == pytest.approx(components, rel=1e-9)
    assert ours.full["interaction"].p == pytest.approx(theirs.interaction_pvalue, rel=1e-9)
    assert ours.ndc == max(theirs.ndc or 0, 1)


def test_aiag_linearity() -> None:
    references = np.repeat(list(PARTS), 12)
    found = linearity(references, np.concatenate(list(PARTS.values())))
    assert (found.intercept, found.slope) == pytest.approx((0.736667, -0.131667), abs=5.1e-7)
    assert found.r2 == pytest.approx(0.714, abs=5.1e-4)
    assert found.sigma == pytest.approx(0.23954, abs=5.1e-6)
    assert list(found.biases.values()) == pytest.approx([0.491667, 0.125, 0.025, -0.291667, -0.616667], abs=5.1e-7)
    assert not found.acceptable()
    theirs = capstat_core.linearity(list(PARTS), list(PARTS.values()))
    assert (found.slope, found.intercept) == pytest.approx((theirs.slope, theirs.intercept), rel=1e-9)
    assert found.slope_p == pytest.approx(theirs.slope_p_value, rel=1e-6)


def test_bias_as_capstat() -> None:
    values = np.array(PARTS[6.0])
    ours, theirs = bias(values, 6.0), capstat_core.bias(values, 6.0)
    assert (ours.bias, ours.t, ours.p) == pytest.approx((theirs.bias, theirs.t_statistic, theirs.p_value), rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx((theirs.ci_lower, theirs.ci_upper), rel=1e-9)
    assert ours.acceptable
    assert not bias(np.array(PARTS[10.0]), 10.0).acceptable


@pytest.mark.parametrize(
    "data", [np.zeros((3, 3, 3)), np.zeros((3, 3)), np.full((2, 2, 2), np.nan), np.ones((3, 1, 2))]
)
def test_no_study(data: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"study|missing|equal"):
        gauge(data)
