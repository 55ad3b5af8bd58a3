"""The fold as a whole: findings, verdicts, part events, health; the same journal gives the same rows."""

from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics.config import AnalyticsConfig, ChartConfig, PartConfig, config_hash
from analytics.engine import KINDS, Engine, SnapshotError
from fieldlab.model import (
    Batch,
    ChartPoint,
    Control,
    Finding,
    MachineState,
    PartEvent,
    Place,
    Record,
    RecordKind,
    SignalKey,
    SignalTable,
    Verdict,
)

SECOND = 1_000_000_000
BAD = 0x80000000


def of(rows: list[Any], kind: type) -> list[Any]:
    return [row for row in rows if isinstance(row, kind)]


def make_parts(plant: Any, noise: Any, count: int, *, shift: float = 0.0, first: int = 0) -> None:
    for i in range(first, first + count):
        plant.part(f"p{i}", float(noise.normal(10 + shift, 0.1)))


def test_one_excursion_is_one_finding(plant: Any, mill_config: Any, noise: Any) -> None:
    engine = plant.engine(mill_config())
    make_parts(plant, noise, 40)
    for i in range(40, 46):
        plant.part(f"p{i}", 10.7)
    make_parts(plant, noise, 10, first=46)
    rows = engine.fold([plant.readings(), *plant.silence()])
    found = [f for f in of(rows, Finding) if f.chart == "size"]
    assert [(f.state, f.revision) for f in found] == [("raised", 1), ("cleared", 2)]
    raised, cleared = found
    assert raised.id == cleared.id
    assert raised.part == "p40"
    assert raised.rule == "1"
    assert raised.statistic == pytest.approx(10.7)
    assert raised.statistic > raised.limit > 10
    assert raised.limits_version == 1
    assert "above the control limit" in raised.detail
    assert "mm" in raised.detail
    verdicts = {v.id: v for v in of(rows, Verdict)}
    assert [verdicts[f"p{i}"].verdict for i in range(40, 46)] == ["fail"] * 6
    assert "above USL 10.5 mm" in verdicts["p40"].reasons[0]
    assert verdicts["p46"].verdict == "suspect"  # the finding is open until two values are back inside
    assert verdicts["p39"].verdict == "pass"
    assert verdicts["p39"].score < 0.4 < verdicts["p46"].score < verdicts["p40"].score == 1.0
    assert verdicts["p40"].limits_versions == {"size": 1, "drift": 1}
    assert verdicts["p20"].limits_versions == {"size": 0, "drift": 0}
    assert verdicts["p40"].features == {"diameter.mean": pytest.approx(10.7)}


def test_limits_freeze_once_and_are_told(plant: Any, mill_config: Any, noise: Any) -> None:
    engine = plant.engine(mill_config())
    make_parts(plant, noise, 80)
    rows = engine.fold([plant.readings()])
    points = [p for p in of(rows, ChartPoint) if p.chart == "size"]
    assert [p.limits_version for p in points[:30]] == [0] * 30
    assert {p.limits_version for p in points[30:]} == {1}
    assert len({(p.center, p.ucl, p.lcl) for p in points[30:]}) == 1
    assert points[0].center is None
    key, chart, limits = engine.limits()[0]
    assert (key, chart, limits.version, limits.n) == (plant.key("diameter"), "size", 1, 30)
    assert "one false alarm in 370" in limits.note


def test_the_first_part_is_not_judged_as_whole(plant: Any, mill_config: Any, noise: Any) -> None:
    engine = plant.engine(mill_config())
    make_parts(plant, noise, 3)
    rows = engine.fold([plant.readings(), *plant.silence()])
    first, second = of(rows, Verdict)
    assert (first.id, first.verdict) == ("p0", "suspect")
    assert "incomplete" in first.reasons[0]
    assert (second.id, second.verdict, second.reasons) == ("p1", "pass", ())
    assert len([p for p in of(rows, ChartPoint) if p.chart == "size"]) == 1


def test_missing_and_bad_characteristics_are_suspect(plant: Any, mill_config: Any, noise: Any) -> None:
    engine = plant.engine(mill_config())
    make_parts(plant, noise, 2)
    plant.part("none", None)
    plant.part("bad", None, status=BAD)
    plant.part("doubt", 10.0, status=0x40000000)
    plant.part("out", 9.0)
    plant.part("end", 10.0)
    verdicts = {v.id: v for v in of(engine.fold([plant.readings(), *plant.silence()]), Verdict)}
    assert {name: verdicts[name].verdict for name in ("none", "bad", "doubt", "out")} == {
        "none": "suspect", "bad": "suspect", "doubt": "suspect", "out": "fail",
    }  # fmt: skip
    assert verdicts["none"].reasons == ("no Good reading of diameter",)
    assert "below LSL 9.5 mm by 0.5 mm" in verdicts["out"].reasons[0]


def test_genealogy(plant: Any, mill_config: Any) -> None:
    engine = plant.engine(mill_config())
    for i in range(3):
        plant.part(f"p{i}", 10.0, tool="T1" if i < 2 else "T2")
    plant.say("tool", "T3", plant.now - SECOND)
    plant.part("p3", 10.0)
    rows = engine.fold([plant.readings(), *plant.silence()])
    events = [(e.event, e.id, e.other, e.text) for e in of(rows, PartEvent) if e.id == "p2"]
    tools = [("consume", "p2", "T2", "tool"), ("consume", "p2", "T3", "tool")]
    assert events == [("start", "p2", "", ""), *tools, ("end", "p2", "", "")]
    assert {v.id: v.genealogy["tool"] for v in of(rows, Verdict)} == {"p0": "T1", "p1": "T1", "p2": "T2, T3"}


def test_rows_of_one_series_never_share_a_time(plant: Any, mill_config: Any) -> None:
    """Tool and lot ride along from the start of a part: two rows at one time would be one point in InfluxDB."""
    config = mill_config()
    part = msgspec.structs.replace(config.parts[0], genealogy=("tool", "lot"))
    engine = plant.engine(msgspec.structs.replace(config, parts=(part,)))
    for name in ("p0", "p1", "p2"):
        plant.part(name, 10.0, tool="T1", lot="L1")
    rows = of(engine.fold([plant.readings(), *plant.silence()]), PartEvent)
    consumed = [e.time for e in rows if e.event == "consume"]
    assert len(consumed) == 6
    assert len(set(consumed)) == 6
    starts = {e.id: e.time for e in rows if e.event == "start"}
    assert all(0 <= e.time - starts[e.id] <= 1 for e in rows if e.event == "consume")


@pytest.mark.parametrize(
    ("config", "signal", "values", "ids"),
    [
        ({"counter": "count"}, "count", [7.0, 8.0, 9.0], ["mill-7", "mill-8"]),
        ({"id": "part_id"}, "part_id", [2.0**53 + 2, 2.0**53 + 4, 1.0], ["9007199254740994", "9007199254740996"]),
        ({"job": "file"}, "file", ["a.gcode", "a.gcode", "", "a.gcode", "b"], None),
        ({"state": "run"}, "state", ["idle", "run", "idle", "run", "idle"], None),
    ],
)
def test_ways_to_tell_parts(plant: Any, config: Any, signal: str, values: list[Any], ids: list[str] | None) -> None:
    engine = plant.engine(AnalyticsConfig(parts=(PartConfig(machine="m*", **config),)))
    for value in values:
        plant.say(signal, value)
        plant.now += 10 * SECOND
    rows = engine.fold([plant.readings(), *plant.silence()])
    found = of(rows, Verdict)
    if ids is not None:
        assert [v.id for v in found] == ids
    else:
        assert len({v.id for v in found}) == len(found) == 2
    if signal == "state":
        assert [s.state for s in of(rows, MachineState)] == values


def test_a_part_id_that_never_changes(plant: Any, mill_config: Any) -> None:
    engine = plant.engine(mill_config(longest="5min"))
    plant.say("part_id", "p0")
    for _ in range(40):
        plant.now += 10 * SECOND
        plant.say("load", 1.0)
    plant.part("p1", 10.0)
    found = of(engine.fold([plant.readings(), *plant.silence()]), Finding)
    assert [(f.rule, f.severity, f.state) for f in found] == [
        ("part-id", "warning", "raised"), ("part-id", "warning", "cleared"),
    ]  # fmt: skip
    assert "mill/part_id has been 'p0' for 5min" in found[0].detail


def test_a_part_id_that_never_comes(plant: Any, mill_config: Any) -> None:
    engine = plant.engine(mill_config(longest="5min"))
    for _ in range(60):
        plant.now += 10 * SECOND
        plant.say("load", 1.0)
    (found,) = of(engine.fold([plant.readings(), *plant.silence()]), Finding)
    assert "no Good value" in found.detail


def test_autocorrelated_data_is_refused_once_and_does_not_flood(plant: Any, noise: Any) -> None:
    """AR(1) with phi = 0.9, in control: no alarms at all, one warning with the figure and what to do."""
    config = AnalyticsConfig(
        charts=tuple(
            ChartConfig(name=k, kind=k, signals=("mill/load",), per="reading") for k in ("individuals", "ewma")
        )
    )
    engine = plant.engine(config)
    x = 0.0
    for _ in range(5000):
        x = 0.9 * x + float(noise.normal())
        plant.say("load", x)
        plant.now += SECOND
    found = of(engine.fold([plant.readings()]), Finding)
    assert Counter((f.rule, f.severity) for f in found) == {("baseline", "warning"): 2}
    assert "lag-1 correlation" in found[0].detail
    assert "residual chart" in found[0].detail
    assert found[0].statistic > found[0].limit > 0


def test_many_screenings_do_not_let_autocorrelated_data_through() -> None:
    """A baseline of 30 passes by chance in 6 of 100 screenings at phi = 0.9; tried for ever, it would pass always."""
    table, random = SignalTable(), np.random.default_rng(4)
    for i in range(30):
        table.index(SignalKey(Place("s", "a", "l", "m"), f"x{i}"))
    chart = ChartConfig(name="c", kind="ewma", signals=("m/x*",), per="reading", baseline=30)
    detail = msgspec.to_builtins(AnalyticsConfig(charts=(chart,)))
    engine, x = Engine(table), random.normal(size=30)
    engine.fold([Record(0, RecordKind.CONTROL, 1, rows=(Control(time=1, action="configure", detail=detail),))])
    for i in range(1500):
        x = 0.9 * x + np.sqrt(1 - 0.81) * random.normal(size=30)
        batch = Batch.of(range(30), np.full(30, i * SECOND), x)
        engine.fold([Record(i, RecordKind.READINGS, 0, batch=batch)])
    assert sum(limits is not None for *_, limits in engine.limits()) <= 8


def test_warn_freezes_with_a_note(plant: Any, noise: Any) -> None:
    chart = ChartConfig(name="c", signals=("mill/load",), per="reading", baseline=100, on_unstable="warn")
    engine = plant.engine(AnalyticsConfig(charts=(chart,)))
    for i in range(200):
        plant.say("load", i + float(noise.normal()))
        plant.now += SECOND
    engine.fold([plant.readings()])
    limits = engine.limits()[0][2]
    assert limits is not None
    assert "frozen although" in limits.note


def test_a_refused_baseline_is_learned_again(plant: Any, noise: Any) -> None:
    """A stuck sensor first: refused in its own words; then it lives, and limits freeze."""
    chart = ChartConfig(name="c", signals=("mill/load",), per="reading", baseline=30)
    engine = plant.engine(AnalyticsConfig(charts=(chart,)))
    for i in range(200):
        plant.say("load", 5.0 if i < 60 else float(noise.normal()))
        plant.now += SECOND
    found = of(engine.fold([plant.readings()]), Finding)
    assert "all 30 values are 5" in found[0].detail
    assert found[-1].state == "cleared"
    assert engine.limits()[0][2] is not None


def test_bad_and_uncertain_readings_never_enter_a_baseline(plant: Any, noise: Any) -> None:
    chart = ChartConfig(name="c", signals=("mill/load",), per="reading", baseline=30)
    engine = plant.engine(AnalyticsConfig(charts=(chart,)))
    for _ in range(40):
        plant.say("load", float(noise.normal()))
        plant.say("load", 1e6, plant.now + 1, 0x40000000)
        plant.say("load", None, plant.now + 2, BAD)
        plant.now += SECOND
    engine.fold([plant.readings()])
    limits = engine.limits()[0][2]
    assert limits is not None
    assert limits.ucl < 10


def test_points_at_most_one_a_second_and_every_violation(plant: Any, noise: Any) -> None:
    chart = ChartConfig(name="c", signals=("mill/load",), per="reading", baseline=30)
    engine = plant.engine(AnalyticsConfig(charts=(chart,)))
    for i in range(400):
        plant.say("load", float(noise.normal(99.0 if i >= 380 else 0.0)))
        plant.now += SECOND // 10
    points = of(engine.fold([plant.readings(), *plant.silence()]), ChartPoint)
    assert sum(p.statistic > 90 for p in points) == 19  # the first might have been a spike
    for before, point in pairwise(points):
        broken = point.ucl is not None and not point.lcl <= point.statistic <= point.ucl
        assert broken or point.time - before.time >= SECOND
    assert 38 <= len(points) - 19 <= 42


def test_windows_without_parts_are_the_default(plant: Any, noise: Any) -> None:
    engine = plant.engine(AnalyticsConfig(charts=(ChartConfig(name="c", signals=("*/load",), baseline=10),)))
    for _ in range(1200):
        plant.say("load", float(noise.normal()))
        plant.now += SECOND // 10
    points = of(engine.fold([plant.readings(), *plant.silence()]), ChartPoint)
    assert len(points) == 11
    assert {p.time % (10 * SECOND) for p in points} == {0}
    assert all(abs(p.statistic) < 0.6 for p in points)


def test_a_wild_clock_does_not_stop_the_machine(plant: Any) -> None:
    chart = ChartConfig(name="c", signals=("mill/load",), per="reading")
    engine = plant.engine(AnalyticsConfig(charts=(chart,)))
    plant.say("load", 1.0, plant.now + 10**18)
    for _ in range(10):
        plant.say("load", 1.0)
        plant.now += SECOND
    rows = engine.fold([plant.readings(), *plant.silence()])
    assert len(of(rows, ChartPoint)) == 10
    assert engine.counters["implausible"] == 1
    assert engine.counters["late"] == 0


def test_acknowledged_and_shelved(plant: Any, mill_config: Any, noise: Any) -> None:
    engine = plant.engine(mill_config())
    make_parts(plant, noise, 40)
    for i in range(40, 43):
        plant.part(f"p{i}", 10.7)
    finding = of(engine.fold([plant.readings(), *plant.silence()]), Finding)[0]
    (row,) = engine.fold([plant.control("acknowledge", id=finding.id, cause="new tool")])
    assert (row.id, row.state, row.revision) == (finding.id, "acknowledged", 2)
    assert row.detail == "acknowledged by anna: new tool"
    assert engine.fold([plant.control("acknowledge", id="0" * 16)]) == []
    assert engine.counters["ignored_controls"] == 1


def test_reconfigured_charts_start_afresh_and_others_go_on(plant: Any, mill_config: Any, noise: Any) -> None:
    config = mill_config()
    engine = plant.engine(config)
    make_parts(plant, noise, 40)
    for i in range(40, 43):
        plant.part(f"p{i}", 10.7)
    engine.fold([plant.readings(), *plant.silence()])
    kept = {chart: limits for _, chart, limits in engine.limits()}
    changed = msgspec.structs.replace(config.charts[1], lambda_=0.3)
    new = msgspec.structs.replace(config, charts=(config.charts[0], changed))
    cleared = engine.fold([plant.configure(new)])
    assert [(f.chart, f.state) for f in cleared] == [("drift", "cleared")]
    assert engine.config_hash == config_hash(new)
    after = {chart: limits for _, chart, limits in engine.limits()}
    assert after["size"] == kept["size"]
    assert after["drift"] is None


def journal(plant: Any, noise: Any) -> list[tuple[int, int, Any, int]]:
    """Two machines; parts, windows and readings; an excursion, disorder, Bad values."""
    robot = Place("site", "area", "line", "robot")
    for i in range(30):
        load = [float(v) for v in noise.normal(50, 2, size=3)]
        plant.part(
            f"p{i}", float(noise.normal(10 + (0.8 if i in (18, 19, 22) else 0), 0.1)), load=load, tool=f"T{i // 7}"
        )
        for k in range(4):
            plant.say("torque", float(noise.normal()) + (9 if i == 20 else 0), plant.now + k * 2 * SECOND, place=robot)
        plant.say("torque", None, plant.now + 9 * SECOND, BAD, place=robot)
        plant.say("state", ("run", "idle")[i % 2], plant.now + 9 * SECOND, place=robot)
    rows: list[tuple[int, int, Any, int]] = plant.rows[:]
    for i in range(0, len(rows) - 3, 3):  # neighbours arrive in another order, some of them late
        rows[i], rows[i + 2] = rows[i + 2], rows[i]
    return rows


def test_cuts_and_crashes_change_nothing(plant: Any, noise: Any, mill_config: Any) -> None:
    base = mill_config(baseline=12)
    config = msgspec.structs.replace(
        base,
        charts=(
            *base.charts,
            ChartConfig(name="window", signals=("*/load", "robot/*"), per="10s", baseline=10, on_unstable="warn"),
            ChartConfig(
                name="each", kind="ewma", signals=("*/torque",), per="reading", baseline=20, on_unstable="warn"
            ),
        ),
    )
    rows = journal(plant, noise)
    configure, silence = plant.configure(config), plant.silence()
    places = (Place("site", "area", "line", "mill"), Place("site", "area", "line", "robot"))

    def fold(batches: list[int], calls: list[int], crashes: set[int]) -> dict[Place, list[Any]]:
        bounds = sorted({0, len(rows), *(b for b in batches if b < len(rows))})
        records = [configure]
        for a, b in pairwise(bounds):
            plant.rows = rows[a:b]
            records.append(plant.readings())
        records += silence
        engine = Engine(plant.table)
        out: list[Any] = []
        ends = sorted({0, len(records), *(c for c in calls if c < len(records))})
        for i, (a, b) in enumerate(pairwise(ends)):
            out += engine.fold(records[a:b])
            if i in crashes:
                saved = engine.snapshot()
                engine = Engine(plant.table)
                engine.restore(saved)
                assert engine.snapshot() == saved
        return {place: [r for r in out if getattr(r, "place", None) == place] for place in places}

    whole = fold([], [], set())
    kinds = Counter(type(row).__name__ for place in places for row in whole[place])
    assert set(kinds) == {"ChartPoint", "Finding", "MachineState", "PartEvent", "Verdict"}
    assert kinds["Finding"] >= 6

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(st.integers(1, len(rows)), max_size=12),
        st.lists(st.integers(1, 15), max_size=6),
        st.sets(st.integers(0, 6)),
    )
    def same(batches: list[int], calls: list[int], crashes: set[int]) -> None:
        assert fold(batches, calls, crashes) == whole

    same()
    assert fold(list(range(len(rows))), list(range(len(rows))), set(range(0, len(rows), 7))) == whole


def test_a_foreign_snapshot_is_refused() -> None:
    with pytest.raises(SnapshotError, match="fold again"):
        Engine(SignalTable()).restore(msgspec.msgpack.encode({"version": 99}))


def test_an_engine_without_configuration_judges_nothing(plant: Any) -> None:
    plant.say("load", 1.0)
    engine = Engine(plant.table)
    assert engine.fold([plant.readings(), *plant.silence()]) == []
    assert engine.config_hash == ""
    assert engine.KINDS == KINDS
    assert {RecordKind.READINGS, RecordKind.TICK, RecordKind.CONTROL, RecordKind.SIGNAL, RecordKind.EVENT} <= KINDS
    assert KINDS.isdisjoint({RecordKind.FINDING, RecordKind.PART, RecordKind.CHART}), "it never reads its own output"


def test_in_control_plant_alarms_at_the_designed_rate() -> None:
    """200 signals over 1,500 values each, through the whole engine: excursions a value, against 1 in 370."""
    table, random = SignalTable(), np.random.default_rng(5)
    for i in range(200):
        table.index(SignalKey(Place("s", "a", "l", f"m{i % 3}"), f"x{i}"))
    config = AnalyticsConfig(charts=(ChartConfig(name="c", signals=("*/x*",), per="reading", baseline=100),))
    engine, raised = Engine(table), 0
    from_builtins = msgspec.to_builtins(config)
    engine.fold([Record(0, RecordKind.CONTROL, 1, rows=(Control(time=1, action="configure", detail=from_builtins),))])
    for i in range(1600):
        batch = Batch.of(range(200), np.full(200, i * SECOND), random.normal(size=200))
        raised += sum(
            f.state == "raised" for f in of(engine.fold([Record(i, RecordKind.READINGS, 0, batch=batch)]), Finding)
        )
    designed = 200 * 1500 / 370.4
    assert 0.8 * designed < raised < 1.15 * designed
