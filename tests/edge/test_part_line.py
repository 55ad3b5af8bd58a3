"""Simulated machines through charts, curves and a store: a wedged bush on its curve, a shaver traced to its sheet."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from analytics.config import AnalyticsConfig, ChartConfig, PartConfig
from analytics.curves.config import CurveConfig
from analytics.engine import Engine
from edge.partreport import genealogy, saw, summary
from fieldlab.model import (
    BatchBuilder,
    Control,
    Finding,
    Place,
    Record,
    RecordKind,
    SignalInfo,
    SignalKey,
    SignalTable,
    Verdict,
)
from fieldlab.model.record import KIND_OF_ROW
from ingest.stores import load_kind
from ingest.stores.base import StoreContext
from simulators.machines import MACHINES
from simulators.machines.records import Fault

SECOND = 1_000_000_000
START = 1_763_900_000 * SECOND
CYCLE = 4 * SECOND
PERIOD = SECOND // 10


def machine(kind: str, name: str, *faults: Fault, seed: int = 7) -> Any:
    return MACHINES[kind](
        name, seed=seed, start=START, sample_period=PERIOD, cycle=CYCLE, faults=faults, parts=70
    )  # fmt: skip


def fold(machines: list[Any], config: AnalyticsConfig) -> list[Any]:
    """Everything the machines say, in the order of time, judged."""
    table, said = SignalTable(), []
    for each in machines:
        place = Place("drachten", "shavers", "3", each.name)
        step = each.step(START + 1_000 * CYCLE)
        said += [(r.ts, table.index(SignalKey(place, r.signal)), r.value) for r in step.readings]
    said.sort(key=lambda row: row[:2])
    control = Control(time=START, action="configure", by="test", detail=msgspec.to_builtins(config))
    records = [Record(0, RecordKind.CONTROL, START, rows=(control,))]
    for at in range(0, len(said), 2_000):
        builder = BatchBuilder()
        for time, index, value in said[at : at + 2_000]:
            builder.add(index, time, value)
        records.append(Record(0, RecordKind.READINGS, said[at][0], batch=builder.build()))
    records += [Record(0, RecordKind.TICK, START + s * 1_000 * SECOND) for s in (1, 2)]
    return Engine(table).fold(records)


def verdicts(rows: list[Any]) -> dict[str, Verdict]:
    return {v.id: v for v in rows if isinstance(v, Verdict)}


def test_a_wedged_bush_shows_on_its_curve() -> None:
    """The peak force is as ever: only the curve says it, and where. Good parts are not disturbed."""
    press = machine("press_fit", "fit-1", Fault(kind="misalignment", start_part=51, end_part=54))
    curve = CurveConfig(name="stroke", machine="fit-1", y="force", x="displacement", baseline=30)
    signals = tuple(
        SignalInfo(key=SignalKey(Place("drachten", "shavers", "3", "fit-1"), n), unit=u)
        for n, u in (("force", "N"), ("displacement", "mm"))
    )
    config = AnalyticsConfig(curves=(curve,), parts=(PartConfig(machine="fit-1", id="part_id"),), signals=signals)
    rows = fold([press], config)
    found = verdicts(rows)
    wedged = [found[press.part_id(n)] for n in (51, 52, 53)]
    assert {v.verdict for v in wedged} == {"suspect"}
    for verdict in wedged:
        words = verdict.reasons[0].split()
        assert verdict.reasons[0].startswith("stroke: force is above its envelope from displacement ")
        assert float(words[words.index("most") + 2]) <= 3.2, "in the first quarter of 12 mm"
    good = [v for v in found.values() if v not in wedged]
    assert len(good) >= 60
    assert sum(v.verdict != "pass" for v in good) <= 2, "the first part, and one by chance"
    assert sum(f.state == "raised" for f in rows if isinstance(f, Finding)) <= 2


def test_a_shaver_is_traced_to_its_sheet(tmp_path: Path) -> None:
    """Four stations, each makes its part of the part before; burrs at the stamp fail shavers at the test."""
    names = {"shaver_stamp": "stamp-1", "shaver_form": "form-1", "shaver_assembly": "join-1", "shaver_test": "test-1"}
    wear = Fault(kind="punch_wear", start_part=41, end_part=56)
    line = [machine(kind, name, *([wear] if kind == "shaver_stamp" else [])) for kind, name in names.items()]
    for before, after in pairwise(line):
        after.follow(before)
    config = AnalyticsConfig(
        charts=(ChartConfig(name="burr", kind="cusum", signals=("stamp-1/burr",), feature="last", baseline=30),),
        parts=(PartConfig(machine="*-1", id="part_id", consume=("child_id",)),),
        signals=tuple(
            SignalInfo(
                key=SignalKey(Place("drachten", "shavers", "3", m.name), s.name), unit=s.unit, lsl=s.lsl, usl=s.usl
            )
            for m in line
            for s in m.signals
            if m.name == "test-1"
        ),
    )
    rows = fold(line, config)
    kind = load_kind("embedded")
    store, reader = kind.create(
        kind.config(), StoreContext(name="here", agent="a", data=tmp_path), SignalTable()
    )  # fmt: skip
    assert reader is not None
    kinds = [(KIND_OF_ROW[type(row)], row) for row in rows]
    store.write([Record(i + 1, k, START, rows=(row,)) for i, (k, row) in enumerate(kinds)])
    try:
        by = {m["machine"].rsplit("/", 1)[-1]: m for m in summary(reader, 0)["machines"]}
        assert set(by) == set(names.values())
        assert by["test-1"]["fail"] >= 3
        assert by["form-1"]["fail"] == 0
        failed = [v for v in verdicts(rows).values() if v.verdict == "fail"]
        shaver = failed[-1].id
        back = genealogy(reader, shaver)["backward"]
        n = shaver.rsplit("-", 1)[1]
        assert [(b["level"], b["to"]) for b in back] == [
            (1, f"join-1-{n}"), (2, f"form-1-{n}"), (3, f"stamp-1-{n}"), (4, f"blank-{n}"),
        ]  # fmt: skip
        sheet = genealogy(reader, f"blank-{n}")["forward"]
        assert [f["to"] for f in sheet] == [f"stamp-1-{n}", f"form-1-{n}", f"join-1-{n}", shaver]
        stamped = genealogy(reader, f"stamp-1-{n}")["verdicts"][-1]
        assert stamped["verdict"] == "suspect", "the chart at the stamp knew it, three stations before"
        (finding,) = (f for f in rows if isinstance(f, Finding) and f.chart == "burr" and f.state == "raised")
        assert "most likely since" in finding.detail
        assert saw(reader, f"child_id=blank-{n}", "")["parts"][0]["into"] == [f"form-1-{n}"]
    finally:
        store.close()
