"""Scenario files: those that ship, and what is said of wrong ones."""

import json
import re
from pathlib import Path

import pytest

from simulators.machines import MACHINES
from simulators.scenarios import ScenarioError, describe, load, machines, named
from simulators.scenarios.describe import NAMESPACE

MILL = '[[machine]]\nname = "cnc-07"\nkind = "cnc_mill"\n'


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_the_named_ones_load_and_explain_themselves() -> None:
    assert len(named()) >= 20
    assert {"hall", "single-mill", "steady", "hall25"} <= set(named())
    for name in named():
        scenario = load(name)
        assert scenario.name == name
        assert scenario.title
        assert scenario.about.strip()
        assert machines(scenario, 0)
        json.dumps(describe(scenario))


def test_the_hall_has_a_clean_stretch_then_one_fault_a_machine_then_clean_parts() -> None:
    described = describe(load("hall"))
    assert [m["place"] for m in described["machines"]] == [
        f"drachten/shavers/3/{m}" for m in ("cnc-07", "robot-03", "printer-02")
    ]
    for machine in described["machines"]:
        (fault,) = machine["faults"]
        assert 31 <= fault["start_part"] < fault["end_part"] <= machine["parts"] - 5


def test_the_hall_makes_bad_parts_of_every_machine_only_while_its_fault_lasts() -> None:
    for seed in range(20):
        for machine in machines(load("hall", seed=seed), 0):
            (fault,) = machine.faults
            bad = [n for n, p in enumerate(machine.step(2**62).parts, 1) if not p.good]
            assert bad, (seed, machine.name)
            assert fault.end_part is not None
            assert fault.start_part <= min(bad) <= max(bad) < fault.end_part


def test_a_description_says_where_each_signal_is() -> None:
    mill, _, printer = describe(load("hall"))["machines"]
    nodes = {s["name"]: s["node"] for s in mill["signals"]}
    assert nodes["spindle_load"] == f"nsu={NAMESPACE};s=cnc-07.spindle_load"
    topics = {s["name"]: s["topic"] for s in printer["signals"]}
    assert topics["flow"] == "fieldlab/drachten/shavers/3/printer-02/flow"
    diameter = next(s for s in mill["signals"] if s["name"] == "diameter")
    assert (diameter["unit"], diameter["lsl"], diameter["target"], diameter["usl"]) == ("mm", 24.97, 25.0, 25.03)
    assert {m["kind"] for m in describe(load("hall"))["machines"]} <= set(MACHINES)


def test_changes_replace_keys_and_none_changes_nothing() -> None:
    scenario = load("hall", seed=99, duration=None)
    assert (scenario.seed, scenario.duration) == (99, 30.0)


def test_a_fault_may_start_at_a_part_a_second_or_a_fraction(tmp_path: Path) -> None:
    text = "title = 'x'\nduration = 100.0\ncycle_time = 2.0\n" + MILL
    starts = ("start_part = 11", "start_seconds = 20.0", "start_seconds = 19.5", "start_fraction = 0.2")
    for start in starts:
        fault = f'[[machine.fault]]\nkind = "tool_wear"\n{start}\nend_fraction = 0.5\n'
        (machine,) = machines(load(written(tmp_path, text + fault)), 0)
        assert (machine.faults[0].start_part, machine.faults[0].end_part) == (11, 26), start


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "is not TOML"),
        ("titel = 'x'\n" + MILL, "unknown key `titel`; did you mean `title`"),
        (MILL, "missing required field `title`"),
        ("title = 'x'\nmachine = []", "at least one"),
        ("title = 'x'\nname = 'y'\n" + MILL, "name of its file"),
        ("title = 'x'\n" + MILL.replace("kind", "knid"), r"machine\[0\]: unknown key `knid`; did you mean `kind`"),
        (
            "title = 'x'\n" + MILL.replace("cnc_mill", "lathe"),
            r"machine\[0\].kind: no machine `lathe`; there are cnc_mill",
        ),
        ("title = 'x'\n" + MILL.replace("cnc-07", "cnc/07"), r"machine\[0\].name: may hold"),
        ("title = 'x'\n" + MILL + MILL, r"machine\[1\].name: there are two"),
        ("title = 'x'\nseed = 'one'\n" + MILL, "seed: Expected `int`"),
        ("title = 'x'\nseed = -1\n" + MILL, "seed: must not be negative"),
        ("title = 'x'\nduration = 0.0\n" + MILL, "duration: must be above 0"),
        ("title = 'x'\nduration = nan\n" + MILL, "duration: must be above 0"),
        ("title = 'x'\nsite = 'a/b'\n" + MILL, "site: may hold"),
        ("title = 'x'\ncycle_time = 0.2\n" + MILL, "at least 4 samples"),
        ("title = 'x'\n" + MILL + "[[machine.fault]]\nkind = 'tool_wear'", r"fault\[0\]: needs start_part"),
        (
            "title = 'x'\n" + MILL + "[[machine.fault]]\nkind = 'tool_wear'\nstart_part = 1\nstart_seconds = 1",
            "give one of start_part, start_seconds",
        ),
        (
            "title = 'x'\n" + MILL + "[[machine.fault]]\nkind = 'tool_wear'\nstart = 1",
            r"machine\[0\].fault\[0\]: unknown key `start`; did you mean `start_part`",
        ),
        ("title = 'x'\n" + MILL + "[[machine.fault]]\nkind = 'rust'\nstart_part = 1", "has no fault `rust`"),
        ("title = 'x'\n" + MILL + "dialect = 'bambu'", r"machine\[0\].dialect: a cnc_mill speaks"),
        (
            "title = 'x'\n" + MILL + "upstream = 'stamp-1'",
            r"machine\[0\].upstream: there is no machine `stamp-1`",
        ),
        ("title = 'x'\n" + MILL + "copies = 0", r"machine\[0\].copies: must be"),
        ("title = 'x'\n" + MILL + "[[habit]]\nkind = 'bad_strom'", r"habit\[0\].kind: .* did you mean `bad_storm`"),
        ("title = 'x'\n" + MILL + "[[habit]]\nkind = 'late'\nmachine = 'x*'", r"habit\[0\].machine: no machine fits"),
        ("title = 'x'\n" + MILL + "[[habit]]\nknid = 'late'", r"habit\[0\]: unknown key `knid`; did you mean `kind`"),
        ("title = 'x'\n" + MILL + "[context]\nlot_parts = 0", "context: needs lot_parts"),
    ],
)
def test_a_wrong_file_is_told_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        load(written(tmp_path, text))


def test_a_scenario_that_is_not_there() -> None:
    with pytest.raises(ScenarioError, match="did you mean `hall`"):
        load("halls")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load("nowhere.toml")


def test_hall25_is_twenty_five_machines_in_every_protocol_and_dialect() -> None:
    described = describe(load("hall25"))["machines"]
    assert len({m["name"] for m in described}) == 25
    assert {m["kind"] for m in described} == set(MACHINES)
    dialects = {"opcua", "json", "sparkplug", "octoprint", "moonraker", "bambu", "vda5050"}
    assert {m["dialect"] for m in described} == dialects
    for m in described:
        rides_along = {"material_lot", "shift", "operator"} <= {s["name"] for s in m["signals"]}
        assert rides_along == (m["dialect"] in ("opcua", "json", "sparkplug")), m["name"]


def test_every_kind_of_fault_that_ships_makes_bad_parts_while_it_lasts_or_none() -> None:
    for name in named():
        if name == "night-shift":
            continue
        for machine in machines(load(name), 0):
            bad = [n for n, p in enumerate(machine.step(2**62).parts, 1) if not p.good]
            spans = [(f.start_part, f.end_part or 2**62) for f in machine.faults]
            if machine.upstream is None:
                assert all(any(a <= n < b for a, b in spans) for n in bad), (name, machine.name)


def test_lots_shifts_and_people_change_when_they_should(tmp_path: Path) -> None:
    context = "[context]\nlot_parts = 5\nshift = 20.0\npeople = ['A', 'B']\n"
    text = "title = 'x'\nduration = 60.0\ncycle_time = 2.0\n" + context + MILL
    (machine,) = machines(load(written(tmp_path, text)), 0)
    readings = machine.step(2**62).readings
    lots = [(r.ts // 2_000_000_000, r.value) for r in readings if r.signal == "material_lot"]
    assert lots == [(n * 5, f"L{n + 1:04d}") for n in range(6)]
    shifts = [(r.ts, r.value) for r in readings if r.signal == "shift"]
    assert shifts == [(0, "night"), (20 * 10**9, "early"), (40 * 10**9, "late")]
    assert [r.value for r in readings if r.signal == "operator"] in (["A", "B", "A"], ["B", "A", "B"])


def test_a_fault_of_the_first_station_is_a_defect_at_the_last() -> None:
    made = {m.name: m for m in machines(load("shaver-line"), 0)}
    steps = {name: machine.step(2**62) for name, machine in made.items()}
    (begun, _) = steps["stamp-1"].faults
    assert begun.signals == ("burr",)
    assert dict(begun.downstream) == {"join-1": ("joining_force",), "test-1": ("motor_current",)}
    assert all(p.good for p in steps["stamp-1"].parts)
    bad = [int(p.id[-6:]) for p in steps["test-1"].parts if "motor_current" in p.why]
    assert bad
    assert all(41 <= n < 56 for n in bad)
    children = [r.value for r in steps["test-1"].readings if r.signal == "child_id"]
    assert children[:2] == ["join-1-000001", "join-1-000002"]
    assert steps["test-1"].parts[0].start == 3 * 400_000_000, "each station works one cycle later"


def test_the_scenario_of_the_readme_runs(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "simulators" / "README.md").read_text("utf-8")
    (block,) = re.findall(r"^```toml scenario\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    scenario = load(written(tmp_path, block))
    assert [m.name for m in machines(scenario, 0)] == ["fdm-1-1", "fdm-1-2", "fdm-1-3", "stamp-1", "form-1"]
    assert scenario.habits()[0].end == 20 * 10**9
