"""Features of a part's phases: a state signal says which phase a reading belongs to."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from analytics.config import AnalyticsConfig, ChartConfig, PartConfig, validate
from analytics.engine import Engine
from analytics.phases import Phases
from fieldlab.model import Finding, SignalInfo, Verdict

SECOND = 1_000_000_000


def of(rows: list[Any], kind: type) -> list[Any]:
    return [row for row in rows if isinstance(row, kind)]


def chart(name: str, feature: str, phase: str = "cutting", **more: Any) -> ChartConfig:
    table = {"name": name, "signals": ["mill/load"], "feature": feature, "phase": phase, "baseline": 12, **more}
    return msgspec.convert(table, ChartConfig)


def a_part(plant: Any, name: str, cut: list[float], *, wait: float = 1.0, idle: float = 100.0) -> None:
    """Setup, two passes of cutting around a pause, unloading; one reading of the load a second, and at each change."""
    plant.say("part_id", name)
    for phase, values in (("setup", [idle] * 2), ("cutting", cut[:3]), ("setup", [idle]), ("cutting", cut[3:])):
        plant.say("step", phase)
        for value in values:
            plant.say("load", value)
            plant.now += SECOND
    plant.say("step", "unloading")
    plant.now += round(wait * SECOND)


def test_features_of_a_phase(plant: Any) -> None:
    """A reading with the time of the change belongs to the new phase; phases of one name count together."""
    charts = tuple(chart(f, f) for f in ("mean", "min", "max", "range", "std", "last", "duration"))
    part = PartConfig(machine="mill", id="part_id", phases="step")
    config = AnalyticsConfig(charts=(*charts, chart("whole", "max", "")), parts=(part,))
    assert validate(config) == []
    engine = plant.engine(config)
    a_part(plant, "p0", [1.0] * 6)
    a_part(plant, "p1", [1.0, 2.0, 3.0, 4.0, 5.0, 9.0])
    a_part(plant, "p2", [])
    a_part(plant, "p3", [1.0] * 6)
    rows = engine.fold([plant.readings(), *plant.silence()])
    _, p1, p2 = of(rows, Verdict)
    assert p1.features == {
        "load.cutting.mean": 4.0, "load.cutting.min": 1.0, "load.cutting.max": 9.0, "load.cutting.range": 8.0,
        "load.cutting.std": pytest.approx(8**0.5), "load.cutting.last": 9.0, "load.cutting.duration": 6.0,
        "load.max": 100.0,
    }  # fmt: skip
    assert p2.verdict == "suspect"
    assert p2.reasons[0] == "no Good reading of load while cutting"
    assert "load.cutting.mean" not in p2.features


def test_limits_and_findings_are_of_the_phase(plant: Any, noise: Any) -> None:
    """The load while the spindle idles is far outside the specification, and nobody minds."""
    info = SignalInfo(key=plant.key("load"), unit="%", lsl=0.0, usl=50.0)
    part = PartConfig(machine="mill", id="part_id", phases="step")
    config = AnalyticsConfig(charts=(chart("cut", "mean"),), parts=(part,), signals=(info,))
    engine = plant.engine(config)
    for i in range(20):
        a_part(plant, f"p{i}", [float(noise.normal(20, 1)) for _ in range(6)])
    a_part(plant, "bad", [30.0] * 6)
    a_part(plant, "worse", [60.0] * 6)
    a_part(plant, "end", [20.0] * 6)
    rows = engine.fold([plant.readings(), *plant.silence()])
    verdicts = {v.id: v for v in of(rows, Verdict)}
    assert {verdicts[f"p{i}"].verdict for i in range(1, 20)} == {"pass"}
    (finding,) = (f for f in of(rows, Finding) if f.state == "raised")
    assert finding.part == "bad"
    assert finding.detail.startswith("mean while cutting of load: 30 % is above the control limit")
    assert (verdicts["bad"].verdict, verdicts["worse"].verdict) == ("suspect", "fail")
    assert "mean while cutting of load 60 % is above USL 50 %" in verdicts["worse"].reasons[0]


def test_cuts_and_crashes_change_no_feature(plant: Any, noise: Any) -> None:
    part = PartConfig(machine="mill", id="part_id", phases="step")
    config = AnalyticsConfig(charts=(chart("cut", "std"), chart("time", "duration", "setup")), parts=(part,))
    configure = plant.configure(config)
    for i in range(20):
        wait = float(noise.uniform(0.1, 2.0))
        a_part(plant, f"p{i}", [float(v) for v in noise.normal(20, 1, size=6)], wait=wait)
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
    assert len(of(whole, Verdict)) == 19
    assert fold(list(range(1, len(said))), crash=False) == whole
    assert fold(list(range(3, len(said), 7)), crash=True) == whole


def test_time_of_a_phase_is_exact() -> None:
    phases = Phases()
    phases.tell([10, 20], ["a", "b"])
    phases.begin(5)
    phases.spend(25)
    phases.tell([30], ["a"])
    phases.spend(31)
    phases.spend(37)
    assert phases.spent == {"a": 10 + 7, "b": 10}
    phases.begin(37)
    phases.spend(40)
    assert phases.spent == {"a": 3}


def test_a_phase_needs_parts() -> None:
    config = AnalyticsConfig(charts=(chart("c", "mean", per="10s"),))
    assert "chart[0].phase" in dict(validate(config))
