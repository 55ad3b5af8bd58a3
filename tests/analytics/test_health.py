"""Sensor health: each simulated fault gives its finding and none of a chart; healthy sensors give none."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from analytics.config import AnalyticsConfig, ChartConfig, PartConfig, validate
from analytics.engine import Engine
from analytics.health.config import HealthConfig, SensorRule
from fieldlab.model import (
    Batch,
    BatchBuilder,
    ChartPoint,
    Control,
    Finding,
    Place,
    Record,
    RecordKind,
    SignalKey,
    SignalTable,
    Verdict,
)
from simulators.machines import MACHINES

SECOND = 10**9
START = 1_700_000_000 * SECOND
N, FROM, TO = 3_000, 2_000, 2_300
CHANNELS = 4

Values = NDArray[np.float64]
Fault = Callable[[Values, NDArray[np.bool_], np.random.Generator], None]


def place(machine: str) -> Place:
    return Place("site", "area", "line", machine)


def configure(config: AnalyticsConfig) -> Record:
    return Record(
        0, RecordKind.CONTROL, 0, rows=(Control(time=0, action="configure", detail=msgspec.to_builtins(config)),)
    )


CHARTS = (
    ChartConfig(name="slow", signals=("m/x*",), per="5s", baseline=30, on_unstable="warn", arl0=1e5),
    ChartConfig(name="fast", kind="residual", signals=("m/x*",), per="reading", baseline=300, arl0=1e5),
)


def autocorrelated(random: np.random.Generator, phi: float = 0.9) -> Values:
    """AR(1) around 20 with standard deviation 1, and a sensor's noise of 0.1."""
    steps = random.normal(size=(N, CHANNELS)) * np.sqrt(1 - phi * phi)
    x = np.zeros((N, CHANNELS))
    for i in range(1, N):
        x[i] = phi * x[i - 1] + steps[i]
    return np.asarray(20 + x + random.normal(0, 0.1, (N, CHANNELS)))


def findings(fault: Fault, *, cut: int = 800, rules: tuple[SensorRule, ...] = ()) -> list[Finding]:
    random = np.random.default_rng(5)
    x, there = autocorrelated(random), np.ones((N, CHANNELS), bool)
    fault(x, there, random)
    table = SignalTable()
    ids = [table.index(SignalKey(place("m"), f"x{k}")) for k in range(CHANNELS)]
    engine = Engine(table)
    engine.fold([configure(AnalyticsConfig(charts=CHARTS, health=HealthConfig(rules=rules)))])
    signal, value = np.tile(ids, N)[there.ravel()], x.ravel()[there.ravel()]
    time = np.repeat(START + np.arange(N) * SECOND // 10, CHANNELS)[there.ravel()]
    rows: list[Any] = []
    for a in range(0, len(signal), cut):
        piece = slice(a, a + cut)
        rows += engine.fold(
            [Record(0, RecordKind.READINGS, 0, batch=Batch.of(signal[piece], time[piece], value[piece]))]
        )
        if a == cut * 3:
            resumed = Engine(table)
            resumed.restore(engine.snapshot())
            engine = resumed
    return [row for row in rows if isinstance(row, Finding)]


def stuck(x: Values, there: NDArray[np.bool_], random: np.random.Generator) -> None:
    x[FROM:TO, 0] = x[FROM - 1, 0]


def flat(x: Values, there: NDArray[np.bool_], random: np.random.Generator) -> None:
    x[FROM:TO, 0] = x[FROM - 1, 0] + random.normal(0, 0.003, TO - FROM)


def saturated(x: Values, there: NDArray[np.bool_], random: np.random.Generator) -> None:
    x[FROM:TO, 0] = 40.0


def quantised(x: Values, there: NDArray[np.bool_], random: np.random.Generator) -> None:
    x[FROM:, 0] = np.round(2 * x[FROM:, 0]) / 2


def spiking(x: Values, there: NDArray[np.bool_], random: np.random.Generator) -> None:
    x[FROM : FROM + 160 : 40, 0] += 60.0


def silent(x: Values, there: NDArray[np.bool_], random: np.random.Generator) -> None:
    there[FROM:TO, 0] = False


FAULTS = [stuck, flat, saturated, quantised, spiking, silent]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_a_sick_sensor_is_a_finding_of_the_sensor_and_of_no_chart(fault: Fault) -> None:
    found = findings(fault)
    assert [(f.signal, f.chart, f.rule, f.severity) for f in found if f.state == "raised"] == [
        ("x0", "_health", fault.__name__, "warning")
    ]
    raised = found[0]
    assert 0 < (raised.time - START) / SECOND * 10 - FROM < 400
    assert "sensor x0" in raised.detail
    cleared = [f for f in found if f.state == "cleared"]
    assert [f.id for f in cleared] == ([] if fault is quantised else [raised.id])


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_the_same_however_readings_are_cut(fault: Fault) -> None:
    assert findings(fault, cut=4_000) == findings(fault, cut=61)


def test_without_the_checks_the_same_fault_is_a_finding_of_charts() -> None:
    """What the tests above rest on: the faults are large enough for the charts."""
    found = findings(saturated, rules=(SensorRule(match="m/*", health=()),))
    assert {f.chart for f in found} == {"slow", "fast"}


def test_a_step_of_the_process_stays_a_finding_of_the_charts() -> None:
    def step(x: Values, there: NDArray[np.bool_], random: np.random.Generator) -> None:
        x[FROM:, 0] += 60.0

    found = [f for f in findings(step) if f.state == "raised"]
    assert {f.chart for f in found} == {"slow", "fast"}
    fast = next(f for f in found if f.chart == "fast")
    assert fast.time == START + (FROM + 1) * SECOND // 10  # one reading later: the first might have been a spike


def test_a_machine_that_stands_has_no_sick_sensors() -> None:
    def stand(x: Values, there: NDArray[np.bool_], random: np.random.Generator) -> None:
        x[FROM:TO, :3] = 0.0

    def off(x: Values, there: NDArray[np.bool_], random: np.random.Generator) -> None:
        there[FROM:TO, :3] = False

    for fault in (stand, off):
        assert not [f for f in findings(fault) if f.chart == "_health"]


def test_twins() -> None:
    """A sensor that drifts by a fifth of the process's own spread, against another one of the same quantity."""
    random, n = np.random.default_rng(3), 60 * 120
    process = np.zeros(n)
    for i in range(1, n):
        process[i] = 0.98 * process[i - 1] + random.normal(0, 0.2)
    both = 20 + process[:, None] + random.normal(0, 0.05, (n, 2))
    both[n // 2 :, 0] += np.linspace(0, 0.3, n - n // 2)

    def judged(tail: float) -> list[Finding]:
        table = SignalTable()
        ids = [table.index(SignalKey(place("m"), name)) for name in ("a", "b")]
        chart = ChartConfig(name="chart", kind="residual", signals=("m/*",), per="reading", baseline=600, arl0=1e6)
        rule = SensorRule(match="m/a", twin="m/b")
        engine = Engine(table)
        engine.fold([configure(AnalyticsConfig(charts=(chart,), health=HealthConfig(rules=(rule,))))])
        x = both.copy()
        x[n // 2 :, 0] *= tail
        time = np.repeat(START + np.arange(n) * SECOND, 2)
        rows: list[Any] = []
        for a in range(0, 2 * n, 999):
            piece = slice(a, a + 999)
            batch = Batch.of(np.tile(ids, n)[piece], time[piece], x.ravel()[piece])
            rows += engine.fold([Record(0, RecordKind.READINGS, 0, batch=batch)])
        return [row for row in rows if isinstance(row, Finding)]

    found = judged(1.0)
    assert [(f.signal, f.chart, f.rule, f.state) for f in found] == [("a", "_health", "drifting", "raised")]
    assert found[0].time > START + n // 2 * SECOND
    assert abs(found[0].statistic) < 0.15
    assert "m/b" in found[0].detail


@pytest.mark.parametrize(("phi", "digits"), [(0.0, 2), (0.9, None), (0.9, 1), (0.99, 1)])
def test_healthy_sensors_are_not_called_sick(phi: float, digits: int | None) -> None:
    """Designed: 1e-12 a reading and check. 1,000 signals for 100 s here; 45 million readings gave none."""
    signals, rounds, block = 1_000, 10, 100
    random, table = np.random.default_rng(9), SignalTable()
    ids = [table.index(SignalKey(place(f"m{k % 20}"), f"x{k}")) for k in range(signals)]
    engine = Engine(table)
    engine.fold([configure(AnalyticsConfig(health=HealthConfig(signals=("m*/x*",))))])
    now, rows = random.normal(size=signals), []
    for b in range(rounds):
        x = np.empty((block, signals))
        for i in range(block):
            now = x[i] = phi * now + random.normal(size=signals) * np.sqrt(1 - phi * phi)
        x = 20 + x if digits is None else np.round(20 + x, digits)
        time = np.repeat(START + (b * block + np.arange(block)) * SECOND // 10, signals)
        rows += engine.fold([Record(0, RecordKind.READINGS, 0, batch=Batch.of(np.tile(ids, block), time, x.ravel()))])
    assert rows == []
    assert engine.counters["doubted"] < 1e-5 * signals * rounds * block


def simulated(kind: str, parts: int) -> Iterator[tuple[str, int, Any]]:
    machine = MACHINES[kind]("m", seed=4, start=START, sample_period=SECOND // 10, cycle=4 * SECOND, parts=parts)
    return ((r.signal, r.ts, r.value) for r in machine.step(START + parts * 5 * SECOND).readings)


@pytest.mark.parametrize("kind", sorted(MACHINES))
def test_simulated_machines_are_healthy(kind: str) -> None:
    table, builder = SignalTable(), BatchBuilder()
    engine = Engine(table)
    part = PartConfig(machine="m", id="part_id")
    engine.fold([configure(AnalyticsConfig(parts=(part,), health=HealthConfig(signals=("m/*",))))])
    for signal, time, value in simulated(kind, 120):
        builder.add(table.index(SignalKey(place("m"), signal)), time, value)
    rows = engine.fold([Record(0, RecordKind.READINGS, 0, batch=builder.build())])
    assert len([row for row in rows if isinstance(row, Verdict)]) > 100
    assert [row.detail for row in rows if isinstance(row, Finding)] == []


def test_a_part_that_a_sick_sensor_measured_is_suspect() -> None:
    table, random = SignalTable(), np.random.default_rng(2)
    part_id, load = (table.index(SignalKey(place("m"), name)) for name in ("part_id", "load"))
    engine, builder = Engine(table), BatchBuilder()
    chart = ChartConfig(name="load", signals=("m/load",), baseline=20)
    engine.fold([configure(AnalyticsConfig(charts=(chart,), parts=(PartConfig(machine="m", id="part_id"),)))])
    for i in range(60 * 50):
        time = START + i * SECOND // 10
        if i % 50 == 0:
            builder.add(part_id, time, f"p{i // 50}")
        builder.add(load, time, 77.7 if 2_000 <= i < 2_500 else float(random.normal(50, 2)))
    rows = engine.fold([Record(0, RecordKind.READINGS, 0, batch=builder.build())])
    verdicts = {v.id: v for v in rows if isinstance(v, Verdict)}
    assert {f.chart for f in rows if isinstance(f, Finding)} == {"_health"}
    assert [name for name, v in verdicts.items() if v.verdict != "pass"] == ["p0", *(f"p{n}" for n in range(40, 51))]
    assert "readings of load are Bad or Uncertain" in verdicts["p40"].reasons[0]
    assert verdicts["p41"].reasons[0] == "no Good reading of load"


def test_what_is_wrong_is_told() -> None:
    rules = (
        SensorRule(match="a/*", health=("stuk",)),
        SensorRule(match="b/*", range=(5.0, 1.0), twin="b", silent="soon", step=-1.0),
    )
    wrong = validate(AnalyticsConfig(health=HealthConfig(rules=rules, learn=5)))
    keys = {"range", "twin", "silent", "step"}
    assert {key for key, _ in wrong} == {"health.learn", "signal[0].health", *(f"signal[1].{key}" for key in keys)}
    assert any("did you mean 'stuck'?" in words for _, words in wrong)


def test_a_process_that_stops_is_still_a_finding_of_the_charts() -> None:
    """All signals of a machine rest, far from usual: no sensor is sick, and the chart goes on to alarm."""
    random, table, k = np.random.default_rng(6), SignalTable(), 6
    ids = [table.index(SignalKey(place("m"), f"x{i}")) for i in range(k)]
    x = random.normal(0, 1, (900, k))
    x[600:] = 8.0
    chart = ChartConfig(name="all", kind="t2", signals=("m/*",), per="reading", baseline=400)
    engine = Engine(table)
    engine.fold([configure(AnalyticsConfig(charts=(chart,)))])
    time = np.repeat(START + np.arange(900) * SECOND, k)
    rows = engine.fold([Record(0, RecordKind.READINGS, 0, batch=Batch.of(np.tile(ids, 900), time, x.ravel()))])
    found = [f for f in rows if isinstance(f, Finding) and f.time >= START + 600 * SECOND]
    assert [(f.chart, f.state) for f in found] == [("all", "raised")]
    assert found[0].time <= START + 601 * SECOND
    points = [p for p in rows if isinstance(p, ChartPoint) and p.time >= START + 601 * SECOND]
    assert len(points) >= 290
    assert min(p.statistic for p in points) > 100
