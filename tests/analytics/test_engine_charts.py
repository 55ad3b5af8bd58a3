"""Kinds of charts inside the fold: recipes told as text, sizes beside counts, subgroups, cut and resumed at will."""

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest

from analytics.config import AnalyticsConfig, ChartConfig, PartConfig
from analytics.engine import Engine
from fieldlab.model import Batch, ChartPoint, Control, Finding, Record, RecordKind, SignalInfo, SignalKey

SECOND = 1_000_000_000
SHORT = ChartConfig(
    name="short", kind="short-run", signals=("mill/diameter",), recipe="mill/program", baseline=20,
    nominals={"A": 10.0, "B": 25.0},
)  # fmt: skip
SHARE = ChartConfig(name="share", kind="p", signals=("mill/bad",), size="mill/inspected", baseline=20)
MEANS = ChartConfig(name="means", kind="xbar-s", signals=("mill/load",), subgroup=4, per="reading", baseline=20)
CUSUM = ChartConfig(name="cusum", kind="cusum", signals=("mill/load",), per="reading", baseline=40, head_start=0.5)
REST = ChartConfig(name="rest", kind="residual", signals=("mill/load",), per="reading", baseline=60)
NELSON = ChartConfig(name="nelson", signals=("mill/load",), per="reading", baseline=40, rules="nelson")
WHOLE = ChartConfig(name="whole", kind="xbar-s", signals=("mill/load",), subgroup=0, per="20s", baseline=12)
RUNS = ChartConfig(
    name="runs", kind="short-run", signals=("mill/load",), recipe="mill/program", per="reading", baseline=40,
    nominals={"A": 0.0, "B": 0.0},
)  # fmt: skip
PARTS = (PartConfig(machine="mill", id="part_id"),)


def configuration(*charts: ChartConfig) -> AnalyticsConfig:
    return AnalyticsConfig(charts=charts, parts=PARTS)


def make(plant: Any, noise: np.random.Generator, count: int) -> None:
    """Parts of ten seconds; the program changes every seventh part, at its start; ten are inspected with each part."""
    for i in range(count):
        program = "A" if i // 7 % 2 == 0 else "B"
        plant.say("program", program)
        plant.say("bad", float(noise.binomial(40, 0.15)), plant.now + SECOND)
        plant.say("inspected", 40.0, plant.now + SECOND)
        load = noise.normal(size=6) + (4.0 if i >= count - 6 else 0.0)
        plant.part(f"p{i}", (10.0 if program == "A" else 25.0) + float(noise.normal(0, 0.1)), load=load.tolist())


def of(rows: list[Any], kind: Any, chart: str) -> list[Any]:
    return [row for row in rows if isinstance(row, kind) and row.chart == chart]


def test_recipes_as_text_one_value_a_part(plant: Any, noise: Any) -> None:
    """Two recipes 15 mm apart fill one chart; a part with a change inside it is passed over and counted."""
    engine = plant.engine(configuration(SHORT))
    make(plant, noise, 60)
    plant.say("program", "C")
    plant.part("odd", 40.0)
    rows = engine.fold([plant.readings(), *plant.silence()])
    ((_, _, limits),) = engine.limits()
    assert abs(limits.center) < 0.1
    assert 0.05 < limits.sigma < 0.2
    assert engine.counters["unusable"] == 60 // 7
    assert [f for f in of(rows, Finding, "short") if f.state == "raised"] == []
    judged = [p.statistic for p in of(rows, ChartPoint, "short") if p.limits_version]
    assert max(abs(z) for z in judged) < 0.6


def test_counts_with_their_sizes(plant: Any, noise: Any) -> None:
    engine = plant.engine(configuration(SHARE))
    make(plant, noise, 60)
    plant.say("bad", 30.0, plant.now + SECOND)
    plant.say("inspected", 40.0, plant.now + SECOND)
    plant.say("bad", 50.0, plant.now + 2 * SECOND)
    plant.now += 3 * SECOND
    rows = engine.fold([plant.readings(), *plant.silence()])
    (raised,) = [f for f in of(rows, Finding, "share") if f.state == "raised"]
    assert raised.statistic == pytest.approx(0.75)
    assert "above the control limit" in raised.detail
    assert engine.counters["unusable"] == 1  # 50 bad ones of 40


def test_subgroups_have_two_plots(plant: Any, noise: Any) -> None:
    engine = plant.engine(configuration(MEANS))
    make(plant, noise, 40)
    for i in range(120):
        wild = (-1.0) ** i * 6.0
        plant.say("load", float(noise.normal()) if i < 80 else wild, plant.now + i * SECOND // 4)
    plant.now += 30 * SECOND
    rows = engine.fold([plant.readings(), *plant.silence()])
    raised = [f for f in of(rows, Finding, "means") if f.state == "raised"]
    assert [f.rule for f in raised] == ["1", "spread"]  # the shift of the last parts, then calm means of wild values
    assert "spread within subgroups" in raised[1].detail
    spreads = of(rows, ChartPoint, "means spread")
    assert spreads
    assert all(p.lcl < p.center < p.ucl for p in spreads)
    ((_, _, limits),) = engine.limits()
    assert "learned from 20 subgroups" in limits.note


def folded(plant: Any, batches: list[Batch], config: AnalyticsConfig, *, resume: bool = False) -> list[Any]:
    control = Control(time=1, action="configure", detail=msgspec.to_builtins(config))
    engine, rows = Engine(plant.table), []
    rows += engine.fold([Record(0, RecordKind.CONTROL, 1, rows=(control,))])
    for i, batch in enumerate(batches):
        rows += engine.fold([Record(i, RecordKind.READINGS, 0, batch=batch)])
        if resume:
            saved, engine = engine.snapshot(), Engine(plant.table)
            engine.restore(saved)
    return rows + engine.fold(plant.silence())


def test_however_it_is_cut_and_resumed(plant: Any, noise: Any) -> None:
    make(plant, noise, 80)
    whole = plant.batch()
    config = configuration(SHORT, SHARE, MEANS, CUSUM, REST, NELSON, WHOLE, RUNS)
    expected = folded(plant, [whole], config)
    charts = {f.chart for f in expected if isinstance(f, Finding) and f.state == "raised" and f.rule != "baseline"}
    assert charts >= {"means", "cusum", "rest", "nelson", "whole", "runs"}
    cuts = [0, *sorted(noise.choice(len(whole), 12, replace=False).tolist()), len(whole)]
    pieces = [whole.take(np.arange(a, b)) for a, b in pairwise(cuts) if b > a]
    for resume in (False, True):
        got = folded(plant, pieces, config, resume=resume)
        assert sorted(msgspec.json.encode(r) for r in got) == sorted(msgspec.json.encode(r) for r in expected)


def test_outliers_of_a_baseline_are_named(plant: Any, noise: Any) -> None:
    chart = ChartConfig(name="c", signals=("mill/load",), per="reading", baseline=60)
    engine = plant.engine(AnalyticsConfig(charts=(chart,)))
    for i in range(80):
        plant.say("load", 99.0 if i == 20 else float(noise.normal()))
        plant.now += SECOND
    engine.fold([plant.readings(), *plant.silence()])
    ((_, _, limits),) = engine.limits()
    assert "1 outliers left out: 99" in limits.note
    assert limits.n == 59


def test_a_signal_description_does_not_matter_to_recipes(plant: Any, noise: Any) -> None:
    """A recipe told as a number with named states counts by its name."""
    info = SignalInfo(key=SignalKey(plant.key("program").place, "program"), states={"1": "A", "2": "B"})
    chart = msgspec.structs.replace(RUNS, nominals={"A": 0.0, "B": 100.0})
    engine = plant.engine(AnalyticsConfig(charts=(chart,), signals=(info,)))
    for i in range(120):
        second = i // 30 % 2
        plant.say("program", 1.0 + second)
        plant.say("load", 100.0 * second + float(noise.normal()))
        plant.now += SECOND
    engine.fold([plant.readings(), *plant.silence()])
    ((_, _, limits),) = engine.limits()
    assert abs(limits.center) < 1
    assert engine.counters["unusable"] == 0
