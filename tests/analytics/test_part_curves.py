"""Curves of parts: the envelope's designed rate, rules, words that say where, and the same whatever the batches."""

import doctest
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest

import analytics.curves.envelope
import analytics.curves.rules
from analytics.config import AnalyticsConfig, PartConfig, validate
from analytics.curves.config import CurveConfig, CurveRule
from analytics.curves.envelope import Doubt, Envelope, learn, limit_of
from analytics.curves.rules import figure
from analytics.engine import Engine
from fieldlab.model import ChartPoint, Finding, Place, SignalInfo, SignalKey, Verdict

SECOND = 1_000_000_000
MILL = Place("site", "area", "line", "mill")
STEP = SECOND // 50


def of(rows: list[Any], kind: type) -> list[Any]:
    return [row for row in rows if isinstance(row, kind)]


@pytest.mark.parametrize("module", [analytics.curves.envelope, analytics.curves.rules])
def test_examples(module: Any) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


# --- the envelope ---


def smooth(random: np.random.Generator, count: int, points: int, width: float) -> Any:
    """Gaussian curves with a squared-exponential correlation, whose spread and mean vary along x: (count, points)."""
    x = np.linspace(0, 1, points)
    root = np.linalg.cholesky(np.exp(-0.5 * ((x[:, None] - x) / width) ** 2) + 1e-9 * np.eye(points))
    return (random.normal(size=(count, points)) @ root.T) * (0.2 + x) + 10 * x


@pytest.mark.parametrize(("n", "rate", "width"), [(30, 0.05, 0.1), (30, 0.01, 0.1), (15, 0.05, 0.3), (30, 0.05, 1e-6)])
def test_the_whole_curve_alarms_at_the_designed_rate(n: int, rate: float, width: float) -> None:
    """In control: 40 baselines, 500 new curves each. From smooth to white, where the bound of Bonferroni counts."""
    random, grid = np.random.default_rng(8), np.linspace(0, 1, 50)
    share = []
    for _ in range(40):
        envelope = learn(grid, smooth(random, n, 50, width), rate)
        assert isinstance(envelope, Envelope)
        z = np.abs((smooth(random, 500, 50, width) - envelope.mean) / envelope.band).max(axis=1)
        share.append(np.mean(z > envelope.limit))
    assert 0.75 * rate < np.mean(share) < 1.25 * rate


def test_the_limit_of_one_point_is_students() -> None:
    assert limit_of(0.01, 29, 0.0, 1) == pytest.approx(2.7564, abs=1e-4)  # t tables: 0.995 quantile, 29 degrees
    assert limit_of(0.01, 29, 10.0, 50) > limit_of(0.01, 29, 5.0, 50) > 2.7564


def test_curves_unlike_the_rest_are_left_out_or_the_baseline_is_refused() -> None:
    random, grid = np.random.default_rng(1), np.linspace(0, 1, 50)
    good = smooth(random, 30, 50, 0.1)
    strange = good.copy()
    strange[3, 20:24] += 5.0
    strange[7, 30:] = np.nan
    found = learn(grid, strange, 0.01)
    assert isinstance(found, Envelope)
    assert found.n == 28
    two = good.copy()
    two[::2] += 20.0
    two[::3, 10:] = np.nan
    refused = learn(grid, two, 0.01)
    assert isinstance(refused, Doubt)
    assert refused.figure > refused.bound
    assert isinstance(learn(grid, np.ones((30, 50)), 0.01), Doubt)


# --- rules ---


def rule(**keys: Any) -> CurveRule:
    return msgspec.convert(keys, CurveRule)


def test_figures_of_a_cure() -> None:
    """Heats at 2 °C/min from 20 to 180 °C, dwells, cools at 4 °C/min; one reading a minute, between the corners."""
    x = np.arange(0.0, 9000.0, 60.0) + 7.0
    y = np.interp(x, [0, 4800, 8400, 9000], [20, 180, 180, 140])
    air = y + np.where(x < 4800, 12.0, 3.0)
    assert figure(rule(kind="ramp", band=[60, 120], per="min"), x, y) == pytest.approx(2.0)
    assert figure(rule(kind="ramp", band=[175, 150], per="min"), x, y) == pytest.approx(-4.0)
    assert figure(rule(kind="dwell", band=[170, 190], per="h"), x, y) == pytest.approx((8400 + 150 - 4500) / 3600)
    assert figure(rule(kind="lag", other="air"), x, y, air) == pytest.approx(12.0)
    assert figure(rule(kind="lag", other="air", range=[5000, 9000]), x, y, air) == pytest.approx(3.0)
    assert figure(rule(kind="highest"), x, y) == 180.0
    assert figure(rule(kind="lowest", range=[4800, 8400]), x, y) == 180.0
    assert figure(rule(kind="value", at=2400), x, y) == pytest.approx(100.0)
    assert np.isnan(figure(rule(kind="value", at=1e6), x, y))
    assert np.isnan(figure(rule(kind="ramp", band=[60, 200]), x, y)), "it never gets there"
    assert figure(rule(kind="dwell", band=[300, 400]), x, y) == 0.0


# --- in the fold ---


def press(plant: Any, name: str, noise: Any, *, bump: float = 0.0, stop: float = 15.0, hold: float = 0.5) -> None:
    """One stroke: approach, pressing from 5 mm on, and back; force and travel at the same 50 times a second."""
    plant.say("part_id", name)
    plant.say("step", "approach")
    spread = noise.normal(1.0, 0.02)
    travels = [*np.arange(0, stop, 0.1), stop]
    for i, s in enumerate([*travels, *travels[::-1][1:]]):
        if i == 50:
            plant.say("step", "pressing")
        if i == len(travels):
            plant.say("step", "return")
            plant.now += round(hold * SECOND)
        back = i >= len(travels)
        force = 0.0 if back else spread * max(s - 5.0, 0.0) ** 1.5 + noise.normal(0, 0.02)
        plant.say("travel", float(s))
        plant.say("force", float(force + (bump if 11.95 < s < 13.05 and not back else 0.0)))
        plant.now += STEP
    plant.now += SECOND


def config_of(**curve: Any) -> AnalyticsConfig:
    table = {"name": "stroke", "machine": "mill", "y": "force", "x": "travel", "baseline": 12, **curve}
    part = PartConfig(machine="mill", id="part_id", phases="step")
    units = {"force": "kN", "travel": "mm"}
    infos = tuple(SignalInfo(key=SignalKey(MILL, name), unit=unit) for name, unit in units.items())
    return AnalyticsConfig(curves=(msgspec.convert(table, CurveConfig),), parts=(part,), signals=infos)


def test_a_press_stroke(plant: Any, noise: Any) -> None:
    """The way back is no part of the curve; the finding says where it left its envelope, and in which phase."""
    config = config_of(rule=[{"kind": "highest", "name": "peak force", "phase": "pressing", "max": 40.0}])
    assert validate(config) == []
    engine = plant.engine(config)
    for i in range(16):
        press(plant, f"p{i}", noise)
    press(plant, "bump", noise, bump=4.0)
    press(plant, "short", noise, stop=11.0)
    press(plant, "hard", noise, bump=25.0)
    for i in range(4):
        press(plant, f"q{i}", noise)
    rows = engine.fold([plant.readings(), *plant.silence()])
    verdicts = {v.id: v for v in of(rows, Verdict)}
    assert {verdicts[f"p{i}"].verdict for i in range(1, 16)} == {"pass"}
    assert [verdicts[n].verdict for n in ("bump", "short", "hard", "q0", "q2")] == [
        "suspect", "suspect", "fail", "pass", "pass",
    ]  # fmt: skip
    (reason,) = verdicts["bump"].reasons
    assert reason.startswith("stroke: force is above its envelope from travel ")
    assert " mm, while pressing: " in reason
    assert " kN is usual" in reason
    assert "travel 0 to 11 mm, its envelope" in verdicts["short"].reasons[0]
    assert verdicts["hard"].reasons[0].startswith("stroke: peak force of force while pressing is ")
    assert verdicts["hard"].features["force.stroke.peak force"] > 40.0
    assert verdicts["p15"].features["force.stroke"] < 4.0 < verdicts["bump"].features["force.stroke"]
    assert (verdicts["p5"].limits_versions, verdicts["p15"].limits_versions) == ({"stroke": 0}, {"stroke": 1})
    found = of(rows, Finding)
    assert [(f.state, f.part, f.rule) for f in found] == [
        ("raised", "bump", "envelope"),
        ("cleared", "bump", "envelope"),
    ]
    assert found[0].statistic > found[0].limit > 2.0
    points = of(rows, ChartPoint)
    assert {(p.chart, p.signal, p.limits_version) for p in points} == {("stroke", "force", 1)}
    (limits,) = (limits for _, name, limits in engine.limits() if name == "stroke")
    assert limits is not None
    assert "one false alarm in 370 curves" in limits.note


def test_where_is_right(plant: Any, noise: Any) -> None:
    """The words name the place of the disturbance, to the grid."""
    engine = plant.engine(config_of(points=151))
    for i in range(16):
        press(plant, f"p{i}", noise)
    press(plant, "bump", noise, bump=5.0)
    press(plant, "end", noise)
    (reason,) = (v.reasons[0] for v in of(engine.fold([plant.readings(), *plant.silence()]), Verdict) if v.id == "bump")
    words = reason.split()
    first, last = (float(words[words.index("travel") + k]) for k in (1, 3))
    assert abs(first - 12.0) <= 0.1
    assert abs(last - 13.0) <= 0.1


def test_an_autoclave_load(plant: Any, noise: Any) -> None:
    """Temperature against time for the twelve parts of a load; one dwells too short, one heats too fast."""
    rules = [
        {"kind": "ramp", "name": "heating", "band": [60, 120], "per": "min", "max": 3.0},
        {"kind": "dwell", "band": [175, 185], "per": "min", "min": 50.0},
        {"kind": "lag", "other": "air", "max": 15.0, "verdict": "suspect"},
    ]
    part = PartConfig(machine="mill", id="part_id", split=",")
    curve = {"name": "cure", "machine": "mill", "y": "core", "baseline": 0, "rule": rules}
    config = AnalyticsConfig(curves=(msgspec.convert(curve, CurveConfig),), parts=(part,))
    assert validate(config) == []
    engine = plant.engine(config)
    for load, (dwell, heat, lag) in enumerate(
        [(60, 2, 5), (60, 2, 5), (40, 2, 5), (60, 4, 5), (60, 2, 20), (60, 2, 5)]
    ):
        plant.say("part_id", ",".join(f"L{load}-{k}" for k in range(12)))
        minutes = np.arange(0, 160 / heat + dwell, 1.0)
        for core in np.minimum(20 + heat * minutes, 180.0).tolist():
            plant.say("core", core)
            plant.say("air", core + lag)
            plant.now += 60 * SECOND
    verdicts = {v.id: v for v in of(engine.fold([plant.readings(), *plant.silence()]), Verdict)}
    assert [verdicts[f"L{load}-7"].verdict for load in range(5)] == ["suspect", "pass", "fail", "fail", "suspect"]
    assert "cure: dwell of core is" in verdicts["L2-0"].reasons[0]
    assert "below 50" in verdicts["L2-0"].reasons[0]
    assert "cure: heating of core is 4, above 3" in verdicts["L3-11"].reasons[0]
    assert "cure: lag of core is 20, above 15" in verdicts["L4-0"].reasons[0]
    assert verdicts["L1-3"].features["core.cure.heating"] == pytest.approx(2.0)


def test_a_baseline_without_a_common_range_is_refused_once(plant: Any, noise: Any) -> None:
    engine = plant.engine(config_of())
    for i in range(40):
        plant.say("part_id", f"p{i}")
        for s in range(20):
            plant.say("travel", float(i % 7 * 100 + s))
            plant.say("force", float(noise.normal()))
            plant.now += STEP
    (found,) = of(engine.fold([plant.readings(), *plant.silence()]), Finding)
    assert (found.rule, found.severity, found.chart) == ("baseline", "warning", "stroke")
    assert "give `range`" in found.detail


def test_cuts_and_crashes_change_no_curve(plant: Any, noise: Any) -> None:
    config = config_of(baseline=10, phase="pressing", rule=[{"kind": "highest", "max": 33.0}])
    configure = plant.configure(config)
    for i in range(16):
        press(plant, f"p{i}", noise, bump=6.0 if i == 13 else 0.0)
    said = plant.rows[:]

    def fold(bounds: list[int], *, crash: bool) -> list[Any]:
        engine = Engine(plant.table)
        out = engine.fold([configure])
        for a, b in pairwise([0, *bounds, len(said)]):
            plant.rows = said[a:b]
            out += engine.fold([plant.readings()])
            if crash:
                saved = engine.snapshot()
                engine = Engine(plant.table)
                engine.restore(saved)
                assert engine.snapshot() == saved
        return out + engine.fold(plant.silence())

    whole = fold([], crash=False)
    assert any(f.rule == "envelope" and f.part == "p13" for f in of(whole, Finding))
    assert fold(list(range(7, len(said), 211)), crash=True) == whole
    assert fold(list(range(1, len(said), 37)), crash=False) == whole


@pytest.mark.parametrize(
    ("curve", "key"),
    [
        ({"name": ""}, "name"),
        ({"y": "time"}, "y"),
        ({"baseline": 3}, "baseline"),
        ({"baseline": 0}, "baseline"),
        ({"points": 3}, "points"),
        ({"machine": "other"}, "machine"),
        ({"range": (3.0, 1.0)}, "range"),
        ({"rule": [{"kind": "ramp", "max": 1.0}]}, "rule[0].band"),
        ({"rule": [{"kind": "dwell", "band": [2, 1], "max": 1.0}]}, "rule[0].band"),
        ({"rule": [{"kind": "lag", "max": 1.0}]}, "rule[0].other"),
        ({"rule": [{"kind": "value", "max": 1.0}]}, "rule[0].at"),
        ({"rule": [{"kind": "highest"}]}, "rule[0].min"),
        ({"rule": [{"kind": "peak", "max": 1.0}]}, "rule[0].kind"),
        ({"rule": [{"kind": "highest", "max": 1.0}, {"kind": "highest", "max": 2.0}]}, "rule[1].name"),
    ],
)
def test_configurations_that_make_no_sense(curve: dict[str, Any], key: str) -> None:
    assert f"curve[0].{key}" in dict(validate(config_of(**curve)))
