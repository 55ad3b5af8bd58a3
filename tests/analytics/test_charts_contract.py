"""The contract of every kind of chart: add a kind to `CHARTS` and it is held to it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from analytics.charts import ChartBank, make_bank
from analytics.charts.short_run import recipe_code
from analytics.config import COUNT_KINDS, KINDS, VECTOR_KINDS, XBAR_KINDS, ChartConfig
from analytics.limits import Estimate

M = ("m/x",)
TWO = {"A": 0.0, "B": 0.0}
CHARTS = {
    "individuals": ChartConfig(signals=M),
    "individuals with run rules": ChartConfig(signals=M, rules=("1", "2", "3")),
    "individuals with Nelson's tests": ChartConfig(signals=M, rules="nelson"),
    "xbar-r": ChartConfig(kind="xbar-r", signals=M, subgroup=4),
    "xbar-s": ChartConfig(kind="xbar-s", signals=M, subgroup=4, rules=("1", "4")),
    "xbar-s, different sizes": ChartConfig(kind="xbar-s", signals=M, subgroup=0),
    "ewma": ChartConfig(kind="ewma", signals=M),
    "ewma, short memory": ChartConfig(kind="ewma", signals=M, lambda_=0.6),
    "cusum": ChartConfig(kind="cusum", signals=M),
    "cusum, fast initial response": ChartConfig(kind="cusum", signals=M, head_start=0.5, shift=1.5),
    "residual": ChartConfig(kind="residual", signals=M, rules=("1", "4")),
    "short-run": ChartConfig(kind="short-run", signals=M, recipe="m/r", nominals=TWO, spreads={"B": 2.0}),
    **{kind: ChartConfig(kind=kind, signals=M, n=0 if kind == "c" else 50) for kind in COUNT_KINDS},
}
K, LENGTH = 5, 200
SCALED = [name for name, c in CHARTS.items() if c.kind not in (*COUNT_KINDS, "short-run")]
MIRRORED = [name for name, c in CHARTS.items() if c.kind not in COUNT_KINDS]
Floats = NDArray[np.float64]


@pytest.fixture(params=list(CHARTS))
def config(request: pytest.FixtureRequest) -> ChartConfig:
    return CHARTS[request.param]


def items(config: ChartConfig, length: int = LENGTH, seed: int = 1, scale: float = 1.0, offset: float = 0.0) -> Floats:
    """Items of a kind, (length, K) or (length, K, columns); from row 120 on, the later the channel the more is off."""
    random = np.random.default_rng(seed)
    off = np.linspace(0, 3, K) * (np.arange(length) >= 120)[:, None]
    if config.kind in XBAR_KINDS:
        size = random.integers(2, 6, (length, K)) if config.subgroup == 0 else np.full((length, K), config.subgroup)
        x = random.normal(size=(length, K, 8)) + off[..., None]
        rows = [[_subgroup(x[i, k, : size[i, k]], config.kind) for k in range(K)] for i in range(length)]
        found = np.array(rows)
        return found * [scale, scale, 1.0] + [offset, 0.0, 0.0]
    if config.kind in COUNT_KINDS:
        area = random.integers(40, 60, (length, K)) if config.kind not in ("c", "np") else np.full((length, K), 50)
        return np.stack([random.poisson(5.0 * (1 + off)).clip(max=40), area], axis=-1).astype(float)
    x = random.normal(size=(length, K)) + off
    if config.kind == "residual":
        for i in range(1, length):
            x[i] += 0.8 * x[i - 1]
    if config.kind == "short-run":
        late = (np.arange(length)[:, None] % 20 >= 10) & np.ones((1, K), bool)
        return np.stack([x * np.where(late, 2.0, 1.0), np.where(late, recipe_code("B"), recipe_code("A"))], axis=-1)
    return x * scale + offset


def _subgroup(x: Floats, kind: str) -> tuple[float, float, float]:
    return float(x.mean()), float(np.ptp(x) if kind == "xbar-r" else x.std(ddof=1)), float(len(x))


def frozen(config: ChartConfig, offset: float = 0.0, scale: float = 1.0) -> ChartBank:
    bank = make_bank(config)
    bank.grow(K)
    baseline = items(config, 100, 9, scale, offset)
    for channel in range(K):
        estimate = bank.estimate(baseline[:, channel])
        bank.freeze(channel, estimate, bank.design(estimate))
    return bank


def run(bank: ChartBank, x: Floats) -> tuple[Floats, NDArray[np.uint16]]:
    found = [bank.update(np.arange(K), row) for row in x]
    return np.array([f.statistic for f in found]), np.array([f.violation for f in found])


def test_every_kind_is_here() -> None:
    assert {c.kind for c in CHARTS.values()} == set(KINDS) - set(VECTOR_KINDS)


def test_together_or_one_at_a_time(config: ChartConfig) -> None:
    x = items(config)
    together, alone = run(frozen(config), x), frozen(config)
    for i, row in enumerate(x):
        for channel in (3, 0, 4, 1, 2):
            found = alone.update(np.array([channel]), row[[channel]])
            assert found.statistic[0] == together[0][i, channel]
            assert found.violation[0] == together[1][i, channel]


def test_saved_and_resumed_bit_for_bit(config: ChartConfig) -> None:
    x, whole, first = items(config), frozen(config), frozen(config)
    expected = run(whole, x)
    run(first, x[:70])
    second = make_bank(config)
    second.load(first.save())
    got = run(second, x[70:])
    assert got[0].tobytes() == expected[0][70:].tobytes()
    assert got[1].tobytes() == expected[1][70:].tobytes()
    assert second.save() == whole.save()


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0.0), (1000.0, -5e4), (1.0, 1e6)])
def test_scale_and_shift(name: str, scale: float, offset: float) -> None:
    config = CHARTS[name]
    plain, violation = run(frozen(config), items(config))
    moved, same = run(frozen(config, offset, scale), items(config, scale=scale, offset=offset))
    zero = offset if config.kind in ("individuals", "ewma", *XBAR_KINDS) else 0.0  # the others plot deviations
    assert (moved - zero) / scale == pytest.approx(plain, abs=1e-6)
    assert (violation == same).all()


@pytest.mark.parametrize("name", MIRRORED)
def test_mirrored_values_break_the_same_rules(name: str) -> None:
    config = CHARTS[name]
    up, down = make_bank(config), make_bank(config)
    known = Estimate(0.0, 1.0, 50)
    for bank in (up, down):
        bank.grow(K)
        for channel in range(K):
            bank.freeze(channel, known, bank.design(known))
    x = items(config)
    mirrored = -x if x.ndim == 2 else x * [-1.0, *[1.0] * (x.shape[2] - 1)]
    assert (run(up, x)[1] == run(down, mirrored)[1]).all()


def test_a_shift_is_found_and_order_matters(config: ChartConfig) -> None:
    violation = run(frozen(config), items(config))[1]
    assert not violation[:100].any(axis=0).all()
    assert violation[120:, 4].any()
    _, backwards = run(frozen(config), items(config)[::-1].copy())
    assert np.flatnonzero(backwards[:, 4])[0] < np.flatnonzero(violation[120:, 4])[0] + 120


def test_a_constant_at_the_centre_alarms_only_for_being_calm(config: ChartConfig) -> None:
    """Nothing but Nelson's test 7, which looks for that, and a spread of nothing within subgroups."""
    bank = make_bank(config)
    bank.grow(K)
    at = {"short-run": [0.0, recipe_code("A")], "xbar-r": [2.5, 0.2, 4.0], "xbar-s": [2.5, 0.1, 4.0]}
    one = np.array([4.0, 40.0] if config.kind in COUNT_KINDS else at.get(config.kind, 2.5))
    known = Estimate(0.0 if config.kind == "short-run" else 2.5, 0.1, 100)
    if config.kind in COUNT_KINDS:
        known = bank.estimate(np.tile(one, (50, 1)) + (np.arange(50) % 2)[:, None] * [1.0, 10.0])
    elif config.kind == "residual":
        known = Estimate(0.0, 0.1, 100, model=(1.0, 0.5, 0.8, 0.0, 0.0, 2.5, 2.5, 2.5))
    for channel in range(K):
        bank.freeze(channel, known, bank.design(known))
    statistic, violation = run(bank, np.array([[one] * K] * 500))
    calm = 1 << 6 if config.rule_set.family == "nelson" else 0
    assert not (violation & ~np.uint16(calm)).any()
    assert bool(violation.any()) == bool(calm)
    assert np.ptp(statistic) < 0.5


def test_more_channels_leave_the_others_alone(config: ChartConfig) -> None:
    bank, grown = frozen(config), frozen(config)
    run(bank, items(config)[:50])
    run(grown, items(config)[:50])
    grown.grow(500)
    assert (run(bank, items(config)[50:])[0] == run(grown, items(config)[50:])[0]).all()


def test_limits_hold_what_they_learned_from(config: ChartConfig) -> None:
    """In control, most points lie inside, and the lines are where the judgement has them."""
    bank = make_bank(config)
    bank.grow(1)
    baseline = items(config, 100, 9)[:, 0]
    estimate = bank.estimate(baseline)
    lines = bank.freeze(0, estimate, bank.design(estimate))
    assert lines.lcl <= lines.center <= lines.ucl
    assert bank.usable(baseline).all()
    broken = sum(bool(bank.update(np.array([0]), row[None]).violation[0]) for row in items(config, 100, 10)[:, 0])
    assert broken <= 12


@pytest.mark.parametrize("name", [name for name, c in CHARTS.items() if c.kind in COUNT_KINDS])
def test_counts_that_make_no_sense(name: str) -> None:
    bank = make_bank(CHARTS[name])
    rows = np.array([[3.0, 50.0], [-1.0, 50.0], [2.5, 50.0], [3.0, 0.0], [3.0, np.nan], [60.0, 50.0]])
    binomial = CHARTS[name].kind in ("p", "np", "laney-p")
    assert bank.usable(rows).tolist() == [True, False, False, False, False, not binomial]


def test_recipes_that_nobody_knows() -> None:
    bank = make_bank(CHARTS["short-run"])
    assert bank.usable(np.array([[1.0, recipe_code("A")], [1.0, recipe_code("C")], [1.0, np.nan]])).tolist() == [
        True,
        False,
        False,
    ]
