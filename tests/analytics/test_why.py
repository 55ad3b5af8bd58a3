"""Why and since when: the most likely time of a change, what happened around it, and which channels, in words."""

import doctest
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import analytics.changepoint
import analytics.myt
from analytics import myt
from analytics.changepoint import KEPT, Recent, step_change, words
from analytics.config import AnalyticsConfig, ChartConfig, PartConfig
from analytics.engine import Engine
from fieldlab.model import Finding, MachineEvent, Place, Record, RecordKind, SignalInfo, SignalKey

SECOND = 1_000_000_000
MILL = Place("site", "area", "line", "mill")


def raised(rows: list[Any], rule: str = "") -> list[Finding]:
    return [r for r in rows if isinstance(r, Finding) and r.state == "raised" and rule in (r.rule, "")]


@pytest.mark.parametrize("module", [analytics.changepoint, analytics.myt])
def test_examples(module: Any) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


# --- the time of a change ---


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
def test_the_most_likely_step_by_its_definition(values: list[float]) -> None:
    """The likelihood itself, up to a constant: minus the squares left about the centre before, and the mean behind."""
    x = np.array(values)

    def squares(t: int) -> float:
        return float(np.sum(x[:t] ** 2) + np.sum((x[t:] - x[t:].mean()) ** 2))

    assert squares(step_change(x, 0.0)) <= min(squares(t) for t in range(len(x))) * (1 + 1e-9) + 1e-6


def test_the_estimate_is_near_the_change() -> None:
    """A shift of 1 sigma behind 40 values in control, found by CUSUM: on average within a value or two of the truth."""
    random, errors = np.random.default_rng(2), []
    for _ in range(1_000):
        x, up, n = random.normal(size=40), 0.0, 40
        while up <= 5.0 and n < 400:
            x = np.append(x, random.normal(1.0))
            up, n = max(0.0, up + x[-1] - 0.5), n + 1
        errors.append(step_change(x, 0.0) - 40)
    assert abs(float(np.mean(errors))) < 1.5
    assert float(np.mean(np.abs(errors) <= 3)) > 0.6


def test_the_newest_values_are_kept_and_resumed() -> None:
    recent = Recent()
    recent.grow(2)
    recent.expect(0, 10.0, 0.5)
    recent.expect(1, 0.0, 1.0)
    for i in range(KEPT + 40):
        recent.add(np.array([0, 1]), np.array([i, i]), np.array([10.0 if i < KEPT + 30 else 11.0, 5.0]))
    change = recent.change(0)
    assert change is not None
    assert (change.time, change.values) == (KEPT + 30, 10)
    assert change.shift == pytest.approx(2.0)
    whole = recent.change(1)
    assert whole is not None
    assert (whole.values, whole.time) == (KEPT, 40)
    assert "at least 64 values" in words(whole)
    again = Recent()
    again.load(recent.save())
    assert again.change(0) == change
    again.forget(0)
    assert again.change(0) is None


# --- channels ---


def test_terms_of_every_order_add_up_to_t2() -> None:
    random = np.random.default_rng(5)
    root = random.normal(size=(4, 4))
    covariance = np.array(root @ root.T + np.eye(4), np.float64)
    z = random.normal(size=4) * 3
    precision = np.array(np.linalg.inv(covariance), np.float64)
    total = float(z @ precision @ z)
    for order in permutations(range(4)):
        terms = myt.split(covariance, z, order)
        assert terms.sum() == pytest.approx(total)
        assert terms[0] == pytest.approx(z[order[0]] ** 2 / covariance[order[0], order[0]])
        assert terms[-1] == pytest.approx(myt.conditional(precision, z)[order[-1]])
    rest = [1, 2, 3]
    regression = covariance[0, rest] @ np.linalg.solve(covariance[np.ix_(rest, rest)], z[rest])
    assert myt.expected(precision, z)[0] == pytest.approx(regression)


def test_words_tell_a_level_from_a_broken_relation() -> None:
    assert myt.words("flow", 5.0, 4.0, 0.0, 1.0, 3.5, " l/min") == "flow 5 l/min is 4.0 sigma above its mean"
    assert myt.words("flow", 5.0, 1.0, 2.0, 30.0, -2.0, "") == "flow 5 does not fit the others: the others let expect 2"
    assert myt.words("flow", 5.0, 1.0, 2.0, 1.0, 1.0, "") == "flow 5"


# --- in the fold ---


def drift(plant: Any, noise: Any) -> None:
    """Forty good parts with one tool, then a new tool and a new lot with the 41st; the diameter shifts by 2 sigma."""
    for i in range(70):
        plant.part(
            f"p{i}", float(noise.normal(10.0 + (0.2 if i >= 40 else 0), 0.1)), tool="T1" if i < 40 else "T2",
        )  # fmt: skip


def chart(kind: str, **more: Any) -> ChartConfig:
    return ChartConfig(name=kind, kind=kind, signals=("mill/diameter",), baseline=30, **more)


def test_a_finding_says_since_when_and_what_happened_then(plant: Any, noise: Any, mill_config: Any) -> None:
    engine = plant.engine(mill_config(charts=[chart("ewma"), chart("cusum")]))
    drift(plant, noise)
    found = raised(engine.fold([plant.readings(), *plant.silence()]))
    assert {f.chart for f in found} == {"ewma", "cusum"}
    for finding in found:
        assert "; most likely since 2023-11-14 22:2" in finding.detail
        assert " sigma up" in finding.detail
        assert "; around then: tool T1 → T2 (" in finding.detail


def test_what_changes_all_the_time_explains_nothing(plant: Any, noise: Any, mill_config: Any) -> None:
    engine = plant.engine(mill_config(charts=[chart("ewma")], genealogy=("tool", "blank")))
    for i in range(70):
        plant.part(
            f"p{i}", float(noise.normal(10.0 + (0.2 if i >= 40 else 0), 0.1)), tool="T1" if i < 40 else "T2",
            blank=f"B{i}",
        )  # fmt: skip
    (finding,) = raised(engine.fold([plant.readings(), *plant.silence()]))
    assert "tool T1 → T2" in finding.detail
    assert "blank" not in finding.detail


def test_alarms_of_the_machine_itself(plant: Any, noise: Any, mill_config: Any) -> None:
    engine = plant.engine(mill_config(charts=[chart("ewma")]))
    drift(plant, noise)
    started = plant.now - 295 * SECOND
    event = MachineEvent(
        time=started, place=MILL, source="Spindle", kind="Alarm", id="1", message="coolant low", active=True
    )
    rows = engine.fold([Record(0, RecordKind.EVENT, 0, rows=(event,)), plant.readings(), *plant.silence()])
    assert "Spindle coolant low" in raised(rows)[0].detail


def test_a_multivariate_finding_names_level_relation_and_order(plant: Any, noise: Any) -> None:
    """Pressure follows flow; then pressure leaves it, and later temperature rises."""
    config = AnalyticsConfig(
        charts=(ChartConfig(name="all", kind="t2", signals=("mill/*",), per="reading", baseline=200),),
        signals=(SignalInfo(key=SignalKey(MILL, "pressure"), unit="bar"),),
    )
    engine = plant.engine(config)
    for i in range(320):
        flow = float(noise.normal())
        shift = 1.5 if i >= 300 else 0.0
        plant.say("flow", 10 + flow)
        plant.say("pressure", 5 + flow + float(noise.normal(0, 0.3)) - shift)
        plant.say("temperature", 60 + float(noise.normal()))
        plant.now += SECOND
    found = [f for f in raised(engine.fold([plant.readings(), *plant.silence()])) if f.time >= plant.now - 21 * SECOND]
    detail = found[0].detail
    assert "does not fit the others: the others let expect" in detail
    assert " bar" in detail


def test_cuts_and_crashes_change_no_word(plant: Any, noise: Any, mill_config: Any) -> None:
    vectors = ChartConfig(name="all", kind="t2", signals=("mill/*",), per="10s", baseline=30, on_unstable="warn")
    config = mill_config(charts=[chart("ewma"), chart("individuals"), vectors])
    assert isinstance(config.parts[0], PartConfig)
    configure = plant.configure(config)
    for i in range(70):
        plant.part(
            f"p{i}", float(noise.normal(10.0 + (0.3 if i >= 45 else 0), 0.1)), tool=f"T{i // 20}",
            load=[float(noise.normal(50.0 + (6 if i >= 50 else 0)))] * 2,
        )  # fmt: skip
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
    assert any("most likely since" in f.detail and "around then" in f.detail for f in raised(whole))
    assert fold(list(range(5, len(said), 13)), crash=True) == whole
    assert fold(list(range(1, len(said))), crash=False) == whole
