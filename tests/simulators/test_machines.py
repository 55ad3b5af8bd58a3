"""Each model: the same for a seed however time is cut, in control without a fault, and moved by its fault alone."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.machines import MACHINES, Fault, Machine, Part, Reading

START = 1_763_900_000_000_001_000
PERIOD = 50_000_000
CYCLE = 400_000_000
FOREVER = 2**62

# per-part mean of each signal made for control charts: expected mean and standard deviation, from the models' formulas
IN_CONTROL = {
    ("cnc_mill", "diameter"): (25.0, math.hypot(0.005, 0.0005)),
    ("cnc_mill", "spindle_load"): (4 + 48 * 6.6 / 8, math.hypot(0.8 * 6.6 / 8, 0.6 / 8**0.5)),
    ("cnc_mill", "vibration"): (0.4 + 0.9 * 6.6 / 8, math.hypot(0.03 * 6.6 / 8, 0.04 / 8**0.5)),
    ("robot", "position_error"): (0.0, math.hypot(0.01, 0.001)),
    ("robot", "cycle_time"): (0.95 * 0.35, 0.95 * 0.35 * 0.006),
    ("printer", "flow"): (100.0, math.hypot(0.6, math.hypot(0.5, 0.5) / 7**0.5)),
    ("laser_cutter", "gas_pressure"): (14.0, math.hypot(0.08, 0.08 / 7**0.5)),
    ("laser_cutter", "kerf_width"): (0.20, math.hypot(0.005, 0.0005)),
    ("laser_cutter", "burr_height"): (20.0, math.hypot(2.5, 0.5)),
    ("press_brake", "angle"): (90.0, math.hypot(0.0135 * 0.01 * 100, 0.07, 0.01)),  # springback, spread, gauge
    ("press_brake", "flange_length"): (40.0, math.hypot(0.06, 0.005)),
    ("press_fit", "peak_force"): (3000.0, math.hypot(60.0, 8.0)),
    ("press_fit", "end_position"): (12.0, 0.01),
    ("screwdriver", "running_torque"): (0.4, 0.01),
    ("screwdriver", "final_torque"): (2.5, 0.02),
    ("screwdriver", "final_angle"): (95.0, 2.0),
    ("shaver_stamp", "burr"): (12.0, 0.8),
    ("shaver_form", "gap"): (60.0, 0.8),
    ("shaver_assembly", "joining_force"): (220.0, 3.0),
    ("shaver_assembly", "glue"): (20.0, 0.4),
    ("shaver_test", "motor_current"): (420.0, math.hypot(4.0, 1.5 / 7**0.5)),
    ("shaver_test", "noise"): (58.0, 0.25),
    ("composite_welder", "peak_temperature"): (380.0, math.hypot(1.5, 0.3)),
    ("composite_welder", "porosity"): (1.0, math.hypot(0.12, 0.02)),
    ("autoclave", "hold_temperature"): (180.0, math.hypot(0.6, 0.1)),
    ("autoclave", "bag_pressure"): (40.0, math.hypot(2.0, 1.5 / 7**0.5)),
    ("milking_robot", "conductivity"): (5.0, math.hypot(0.12, 0.05 / 7**0.5)),
    ("milking_robot", "vacuum"): (42.0, math.hypot(0.3, 0.4 / 7**0.5)),
    ("milking_robot", "attachment_time"): (40.0, 2.0),
    ("milking_robot", "yield"): (18.0, math.hypot(6 * 0.08, 0.05)),
    ("agv", "battery_voltage"): (48.0, 0.06),
    ("agv", "deviation"): (0.05, math.hypot(0.006, 0.002 / 7**0.5)),
    ("filling_cell", "fill_weight"): (250.0, math.hypot(0.4, 0.05)),
    ("filling_cell", "seal_temperature"): (165.0, math.hypot(0.5, 0.6 / 7**0.5)),
    ("filling_cell", "label_offset"): (0.0, math.hypot(0.2, 0.02)),
}
FAULTS = [(kind, fault) for kind, machine in MACHINES.items() for fault in machine.FAULTS]


def make(kind: str, seed: int = 5, **options: Any) -> Machine:
    return MACHINES[kind](
        "m-1", seed=seed, **{"start": START, "sample_period": PERIOD, "cycle": CYCLE, "parts": 20, **options}
    )


def per_part(readings: list[Reading], signal: str) -> np.ndarray:
    values: dict[int, list[float]] = {}
    for r in readings:
        if r.signal == signal:
            values.setdefault((r.ts - START) // CYCLE, []).append(float(r.value))
    return np.array([np.mean(v) for v in values.values()])


def lag_1(x: np.ndarray) -> float:
    d = x - x.mean()
    return float(np.sum(d[1:] * d[:-1]) / np.sum(d * d))


@pytest.mark.parametrize("kind", MACHINES)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(-PERIOD, 9 * CYCLE), max_size=30))
def test_how_time_is_cut_changes_nothing(kind: str, cuts: list[int]) -> None:
    fault = Fault(kind=next(iter(MACHINES[kind].FAULTS)), start_part=3, end_part=6)
    whole = make(kind, parts=8, faults=[fault]).step(FOREVER)
    machine = make(kind, parts=8, faults=[fault])
    steps = [machine.step(START + cut) for cut in sorted(cuts)] + [machine.step(FOREVER)]
    for i, all_at_once in enumerate(whole):
        assert list(itertools.chain.from_iterable(step[i] for step in steps)) == all_at_once
    for cut, step in zip(sorted(cuts), steps, strict=False):
        assert all(r.ts <= START + cut for r in step.readings)
        assert all(p.end <= START + cut for p in step.parts)


@pytest.mark.parametrize("kind", MACHINES)
def test_the_seed_and_the_name_decide(kind: str) -> None:
    assert make(kind).step(FOREVER) == make(kind).step(FOREVER)
    numbers = {tuple(r.value for r in make(kind, seed=s).step(FOREVER).readings) for s in range(3)}
    assert len(numbers) == 3
    other = MACHINES[kind]("m-2", seed=5, start=START, sample_period=PERIOD, cycle=CYCLE, parts=20)
    assert [r.value for r in other.step(FOREVER).readings] != [r.value for r in make(kind).step(FOREVER).readings]


@pytest.mark.parametrize("kind", MACHINES)
def test_readings_have_the_times_and_signals_they_should(kind: str) -> None:
    step = make(kind).step(FOREVER)
    signals = {s.name: s for s in MACHINES[kind].SIGNALS}
    assert {r.signal for r in step.readings} == set(signals)
    times = [r.ts for r in step.readings]
    assert times == sorted(times)
    assert all((t - START) % PERIOD == 0 for t in times)
    assert len({(r.signal, r.ts) for r in step.readings}) == len(step.readings), "two readings of a signal at one time"
    for r in step.readings:
        signal = signals[r.signal]
        assert isinstance(r.value, str) == (signal.kind in ("text", "state"))
        if isinstance(r.value, float):
            assert math.isfinite(r.value)
            assert signal.low is None or signal.low <= r.value <= (signal.high or math.inf)
            assert signal.lsl is None or r.value >= signal.lsl
            assert signal.usl is None or r.value <= signal.usl


@pytest.mark.parametrize("kind", MACHINES)
def test_parts_follow_each_other_and_the_last_is_ended(kind: str) -> None:
    step = make(kind).step(FOREVER)
    assert [p.id for p in step.parts] == [f"m-1-{n:06d}" for n in range(1, 21)]
    assert [p.start for p in step.parts] == [START + n * CYCLE for n in range(20)]
    assert all(p.end == p.start + CYCLE for p in step.parts)
    assert all(p.good and not p.why for p in step.parts)
    ids = [(r.ts, r.value) for r in step.readings if r.signal == "part_id"]
    assert ids == [(p.start, p.id) for p in step.parts] + [(step.parts[-1].end, "")]
    states = [r.value for r in step.readings if r.signal == "state"]
    assert states == ["idle", "running"] * 20 + ["idle"]


@pytest.mark.parametrize(("kind", "signal"), [("cnc_mill", "diameter"), ("robot", "position_error")])
def test_a_measurement_comes_while_its_part_id_stands(kind: str, signal: str) -> None:
    step = make(kind).step(FOREVER)
    measured = [r for r in step.readings if r.signal == signal]
    assert len(measured) == len(step.parts)
    for r, p in zip(measured, step.parts, strict=True):
        assert p.start + 0.8 * CYCLE <= r.ts < p.end
        assert r.value == pytest.approx(p.dimensions[signal], abs=5e-3)


@pytest.mark.parametrize("kind", MACHINES)
def test_in_control_the_values_of_parts_are_independent_and_normal(kind: str) -> None:
    n = 3000
    step = make(kind, parts=n).step(FOREVER)
    assert all(p.good for p in step.parts)
    for signal in MACHINES[kind].SIGNALS:
        x = per_part(step.readings, signal.name) if signal.kind == "gauge" else np.empty(0)
        if signal.per_part == "autocorrelated":
            assert lag_1(x) > 0.9, signal.name
        elif signal.per_part == "iid":
            assert len(x) == n
            assert abs(lag_1(x)) < 0.09, signal.name
            z = (x - x.mean()) / x.std()
            assert abs(np.mean(z**3)) < 0.2, f"{signal.name} is skewed"
            assert abs(np.mean(z**4) - 3) < 0.4, f"{signal.name} has heavy tails"
            assert np.mean(np.abs(z) > 3) < 0.006, f"{signal.name}: 0.0027 expected"
            if (kind, signal.name) in IN_CONTROL:
                mean, sd = IN_CONTROL[kind, signal.name]
                assert x.mean() == pytest.approx(mean, abs=5 * sd / n**0.5)
                assert x.std() == pytest.approx(sd, rel=0.07)


@pytest.mark.parametrize(("kind", "fault"), FAULTS)
def test_a_fault_moves_its_signals_and_no_other_bit(kind: str, fault: str) -> None:
    healthy = make(kind, parts=80).step(FOREVER)
    faulty = make(kind, parts=80, faults=[Fault(kind=fault, start_part=41, end_part=56)]).step(FOREVER)
    affected = MACHINES[kind].FAULTS[fault]
    for signal in MACHINES[kind].SIGNALS:
        if signal.name == "tool_id":
            continue  # changes with the repair
        was, now = ([r for r in s.readings if r.signal == signal.name] for s in (healthy, faulty))
        if signal.name not in affected:
            assert was == now, signal.name
            continue
        before, after = per_part(was, signal.name), per_part(now, signal.name)
        assert np.array_equal(before[:40], after[:40])
        assert np.array_equal(before[55:], after[55:]), "not clean after the repair"
        shift = np.abs(after[40:55] - before[40:55]) / max(before.std(), 1e-9)
        assert np.median(shift) > 3, f"{signal.name} hardly moves: {shift}"
    bad = [n for n, p in enumerate(faulty.parts, 1) if not p.good]
    if fault in MACHINES[kind].HARMLESS:
        assert not bad
        return
    assert 4 <= len(bad) <= 15
    assert all(41 <= n < 56 for n in bad)
    assert all(p.why for p in faulty.parts if not p.good)


@pytest.mark.parametrize(("kind", "fault"), FAULTS)
def test_severity_scales_a_fault(kind: str, fault: str) -> None:
    signal = MACHINES[kind].FAULTS[fault][0]

    def shift(severity: float) -> float:
        faults = [Fault(kind=fault, start_part=1, severity=severity)]
        x = per_part(make(kind, faults=faults).step(FOREVER).readings, signal)
        return abs(float(np.mean(x - per_part(make(kind).step(FOREVER).readings, signal))))

    assert shift(1.0) == pytest.approx(2 * shift(0.5), rel=0.02)


def test_a_fault_is_told_when_it_begins_and_when_it_ends() -> None:
    fault = Fault(kind="tool_wear", start_part=3, end_part=5, severity=0.5)
    machine = make("cnc_mill", faults=[fault])
    assert machine.step(START + 2 * CYCLE - 1).faults == []
    (begun,) = machine.step(START + 2 * CYCLE).faults
    (ended,) = machine.step(FOREVER).faults
    assert begun.start == START + 2 * CYCLE
    assert begun.end is None
    assert (begun.first_part, begun.severity) == ("m-1-000003", 0.5)
    assert ended == begun._replace(end=START + 4 * CYCLE)
    tools = [(r.ts, r.value) for r in make("cnc_mill", faults=[fault]).step(FOREVER).readings if r.signal == "tool_id"]
    assert tools == [(START, "T01"), (START + 4 * CYCLE, "T02")]


def test_a_fault_that_is_never_repaired_ends_with_production() -> None:
    machine = make("cnc_mill", faults=[Fault(kind="tool_wear", start_part=19)])
    assert [f.end for f in machine.step(FOREVER).faults] == [None, START + 20 * CYCLE]
    machine = make("cnc_mill", faults=[Fault(kind="tool_wear", start_part=2)])
    machine.step(START + 3 * CYCLE)
    assert [f.end for f in machine.stop(START + 3 * CYCLE + 5)] == [START + 3 * CYCLE + 5]
    assert machine.step(FOREVER) == ([], [], [])


@pytest.mark.parametrize("ticks", [4, 5, 20, 37, 200])
@pytest.mark.parametrize("kind", MACHINES)
def test_any_length_of_cycle_works(kind: str, ticks: int) -> None:
    step = make(kind, cycle=ticks * PERIOD, parts=6).step(FOREVER)
    assert len(step.parts) == 6
    assert all(isinstance(p, Part) and p.good for p in step.parts)
    assert {r.signal for r in step.readings} == {s.name for s in MACHINES[kind].SIGNALS}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cycle": 3 * PERIOD}, "at least 4 samples"),
        ({"start": START + 1}, "whole microseconds"),
        ({"faults": [Fault(kind="nozzle_clog", start_part=1)]}, "has no fault `nozzle_clog`; it has tool_wear"),
        ({"faults": [Fault(kind="tool_wear", start_part=0)]}, "must start at part 1"),
        ({"faults": [Fault(kind="tool_wear", start_part=5, end_part=5)]}, "end after it started"),
        ({"faults": [Fault(kind="tool_wear", start_part=5, severity=0.0)]}, "severity above 0"),
        ({"faults": [Fault(kind="tool_wear", start_part=s, end_part=s + 5) for s in (3, 7)]}, "overlap at part 7"),
        ({"faults": [Fault(kind="tool_wear", start_part=s) for s in (3, 7)]}, "overlap at part 7"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("cnc_mill", **options)


def test_a_fault_by_hand_begins_with_the_next_part_and_a_repair_ends_it() -> None:
    machine = make("cnc_mill")
    machine.step(START + 4 * CYCLE)  # part 5 is in work
    assert machine.inject("tool_wear", severity=3.0).start_part == 6
    assert machine.repair() == ["tool_wear"], "it is taken back before it began"
    assert machine.repair() == []
    machine.inject("tool_wear", severity=3.0)
    with pytest.raises(ValueError, match="overlap"):
        machine.inject("tool_wear")
    machine.step(START + 8 * CYCLE)
    assert machine.repair() == ["tool_wear"]
    by_hand = machine.step(FOREVER)
    planned = make("cnc_mill", faults=[Fault(kind="tool_wear", start_part=6, end_part=10, severity=3.0)]).step(FOREVER)
    assert by_hand.parts == planned.parts[8:], "the same as if it had been planned"
    assert by_hand.faults == [planned.faults[-1]]
