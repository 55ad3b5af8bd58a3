"""Part events and revisions of verdicts: stations, late measurements, rework, holds, nests and loads."""

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics.config import AnalyticsConfig, PartConfig, validate
from analytics.engine import Engine
from fieldlab.model import PartEvent, Place, SignalInfo, SignalKey, Verdict

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
MILL = Place("site", "area", "line", "mill")
CMM = Place("site", "area", "line", "cmm")
STATION = PartConfig(
    machine="cmm", part="measured_id", measure=("bore", "diameter"), inspect=("visual",), rework=("polished",),
    hold=("hold",), release=("released",),
)  # fmt: skip


def of(rows: list[Any], kind: type) -> list[Any]:
    return [row for row in rows if isinstance(row, kind)]


def configured(*parts: PartConfig, **limits: tuple[float, float]) -> AnalyticsConfig:
    """Limits by `machine__signal`."""
    infos = [
        SignalInfo(
            key=SignalKey(Place("site", "area", "line", path.split("__")[0]), path.split("__")[1]),
            unit="mm", lsl=low, usl=high,
        )
        for path, (low, high) in limits.items()
    ]  # fmt: skip
    mill = PartConfig(machine="mill", id="part_id", genealogy=("tool",))
    return AnalyticsConfig(parts=(*(parts or (STATION,)), mill), signals=tuple(infos))


class Shop:
    """A mill and a measuring station, told second by second."""

    def __init__(self, plant: Any, config: AnalyticsConfig) -> None:
        assert validate(config) == []
        self.plant = plant
        self.engine = plant.engine(config)
        self.rows: list[Any] = []

    def mill(self, *names: str, diameter: float = 10.0) -> None:
        for name in names:
            self.plant.part(name, diameter, tool="T1")
        self.judge()

    def at_cmm(self, name: str, **said: Any) -> list[Any]:
        self.plant.say("measured_id", name, place=CMM)
        for signal, value in said.items():
            self.plant.say(signal, value, place=CMM)
        self.plant.now += SECOND
        return self.judge()

    def judge(self) -> list[Any]:
        """What comes of everything said so far, once both machines have been silent."""
        new: list[Any] = self.engine.fold([self.plant.readings(), *self.plant.silence()])
        self.plant.now += 10 * SECOND
        self.rows += new
        return new

    def history(self, part: str) -> list[Any]:
        return [v for v in of(self.rows, Verdict) if v.id == part]


def test_a_late_measurement_makes_the_second_revision(plant: Any) -> None:
    shop = Shop(plant, configured(cmm__bore=(5.0, 6.0)))
    shop.mill("p0", "p1", "p2", "p3")
    plant.now += 5 * HOUR
    rows = shop.at_cmm("p1", bore=6.5)
    first, second = shop.history("p1")
    assert (first.revision, first.verdict, second.revision, second.verdict) == (1, "pass", 2, "fail")
    assert second.reasons == ("value of bore 6.5 mm is above USL 6 mm by 0.5 mm at cmm",)
    assert second.place == MILL, "a revision belongs to the machine that made the part"
    assert second.time == first.time + 1, "it keeps the time of the part's end, in a row of its own"
    assert (second.start, second.genealogy) == (first.start, {"tool": "T1"})
    assert second.features == {"cmm/bore": 6.5}
    (event,) = of(rows, PartEvent)
    assert (event.event, event.id, event.place, event.other, event.value) == ("measure", "p1", CMM, "bore", 6.5)
    shop.at_cmm("p1", bore=5.5)
    assert [(v.revision, v.verdict) for v in shop.history("p1")] == [(1, "pass"), (2, "fail"), (3, "pass")]
    assert [(v.revision, v.verdict) for v in shop.history("p2")] == [(1, "pass")]


def test_a_measurement_waits_for_the_part_to_be_made(plant: Any) -> None:
    """The last part of a machine ends when the next one starts: it may be measured long before."""
    shop = Shop(plant, configured(cmm__bore=(5.0, 6.0)))
    shop.mill("p0", "p1")
    shop.at_cmm("p1", bore=6.5)
    assert shop.history("p1") == []
    shop.mill("p2")
    assert [(v.revision, v.verdict) for v in shop.history("p1")] == [(1, "pass"), (2, "fail")]
    shop.at_cmm("never made", bore=6.5)
    assert shop.engine.counters["unmatched"] == 0, "it waits on"


def test_two_measurements_that_disagree(plant: Any) -> None:
    limits = {"mill__diameter": (9.5, 10.5), "cmm__diameter": (9.5, 10.5)}
    shop = Shop(plant, configured(**limits))
    shop.mill("p0", "p1")
    shop.mill("p2", diameter=10.8)
    shop.mill("p3")
    shop.at_cmm("p2", diameter=10.1)
    fail, doubt = shop.history("p2")
    assert (fail.verdict, doubt.verdict) == ("fail", "suspect")
    assert "but in order at cmm/diameter" in doubt.reasons[0]
    shop.at_cmm("p2", released="anna")
    assert shop.history("p2")[-1].verdict == "pass"


def test_rework_hold_and_release(plant: Any) -> None:
    limits = {"mill__diameter": (9.5, 10.5), "cmm__diameter": (9.5, 10.5)}
    shop = Shop(plant, configured(**limits))
    shop.mill("p0", "p1")
    shop.mill("p2", diameter=10.8)
    shop.mill("p3")
    shop.at_cmm("p2", polished="burr")
    assert shop.history("p2")[-1].reasons == ("reworked (burr), and diameter not measured since",)
    shop.at_cmm("p2", visual="ok")
    assert shop.history("p2")[-1].verdict == "suspect", "looking at it does not say its diameter"
    shop.at_cmm("p2", diameter=10.4)
    assert [v.verdict for v in shop.history("p2")] == ["fail", "suspect", "suspect", "pass"]
    assert shop.history("p2")[-1].genealogy == {"tool": "T1", "rework": "burr"}
    shop.at_cmm("p1", hold="crack?")
    assert shop.history("p1")[-1].reasons == ("held at cmm: crack?",)
    shop.at_cmm("p1", visual="n.i.O.")
    assert shop.history("p1")[-1].verdict == "fail"
    shop.at_cmm("p1", released="anna")
    assert shop.history("p1")[-1].reasons == ("inspection cmm/visual: n.i.O.",), "a release makes nothing good"
    shop.at_cmm("p1", visual="i.O.")
    assert [v.verdict for v in shop.history("p1")] == ["pass", "suspect", "fail", "fail", "pass"]


def test_a_part_that_is_made_again_is_reworked(plant: Any) -> None:
    shop = Shop(plant, configured(mill__diameter=(9.5, 10.5)))
    shop.mill("p0")
    shop.mill("p1", diameter=10.8)
    shop.mill("p2")
    shop.mill("p1", "p3")
    first, again = shop.history("p1")
    assert [(v.revision, v.verdict) for v in (first, again)] == [(1, "fail"), (2, "pass")]
    assert again.genealogy["rework"] == "made again on this machine"
    assert [e.event for e in of(shop.rows, PartEvent) if e.id == "p1" and e.event == "rework"] == ["rework"]


def test_events_of_the_machine_that_makes_the_part(plant: Any) -> None:
    """Child parts are consumed once each; what is said during the part counts at its first revision."""
    mill = PartConfig(
        machine="mill", id="part_id", consume=("body_id",), hold=("hold",), measure=("torque",), genealogy=("tool",)
    )
    shop = Shop(plant, configured(mill))
    for i in range(4):
        plant.say("part_id", f"p{i}")
        plant.say("tool", "T1")
        plant.say("body_id", f"body-{i}", plant.now + (SECOND if i else 0))
        plant.say("torque", 5.0 + i, plant.now + 2 * SECOND)
        plant.say("torque", 5.0 + i, plant.now + 3 * SECOND)
        if i == 2:
            plant.say("hold", True, plant.now + 4 * SECOND)
            plant.say("hold", False, plant.now + 5 * SECOND)
        plant.now += 10 * SECOND
    shop.judge()
    events = [e for e in of(shop.rows, PartEvent) if e.id == "p2"]
    assert [(e.event, e.other, e.text, e.value) for e in events] == [
        ("start", "", "", None), ("consume", "T1", "tool", None), ("consume", "body-2", "body_id", None),
        ("measure", "torque", "", 7.0), ("hold", "hold", "1", None), ("end", "", "", None),
    ]  # fmt: skip
    (held,) = shop.history("p2")
    assert (held.verdict, held.reasons) == ("suspect", ("held at mill: 1",))
    assert held.genealogy == {"tool": "T1", "body_id": "body-2"}
    assert shop.history("p1")[0].verdict == "pass"


@pytest.mark.parametrize("by", ["nested", "signal", "split"])
def test_twelve_parts_at_once(plant: Any, by: str) -> None:
    """From one sheet, or in one autoclave: each its events and its verdict, one value for the chart."""
    keys = {"nested": {"nested": 12}, "signal": {"nested": "count"}, "split": {"split": ","}}[by]
    load = PartConfig(machine="mill", id="part_id", genealogy=("batch",), **keys)  # type: ignore[arg-type]  # one of three
    shop = Shop(plant, configured(load, mill__pressure=(5.0, 7.0)))
    for i in range(4):
        names = [f"S{i}-{k + 1}" for k in range(12)]
        plant.say("part_id", ", ".join(names) if by == "split" else f"S{i}")
        plant.say("count", 12)
        plant.say("batch", "B7")
        plant.say("pressure", 7.5 if i == 2 else 6.0, plant.now + SECOND)
        plant.now += HOUR // 10
    shop.judge()
    verdicts = of(shop.rows, Verdict)
    assert [v.id for v in verdicts] == [f"S{i}-{k + 1}" for i in range(3) for k in range(12)]
    assert [v.verdict for v in verdicts[12:]] == ["pass"] * 12 + ["fail"] * 12
    assert len({v.time for v in verdicts}) == 36, "two rows of one series at one time would be one in a store"
    events = [e for e in of(shop.rows, PartEvent) if e.id == "S1-7"]
    sheet = [] if by == "split" else [("consume", "S1", "nest")]
    assert [(e.event, e.other, e.text) for e in events] == [
        ("start", "", ""), *sheet, ("consume", "B7", "batch"), ("end", "", ""),
    ]  # fmt: skip
    places = [(e.event, e.time) for e in of(shop.rows, PartEvent)]
    assert len(set(places)) == len(places)


def test_which_machine_made_it(plant: Any) -> None:
    """A part with one id over two machines: the last one, or the one that `of` names."""
    press = Place("site", "area", "line", "press")
    makers = tuple(PartConfig(machine=m, id="part_id") for m in ("mill", "press"))
    for wanted, found in (("", press), ("mi*", MILL)):
        station = msgspec.structs.replace(STATION, of=wanted)
        shop = Shop(plant, configured(station, *makers, cmm__bore=(5.0, 6.0)))
        for place in (MILL, press):
            for name in ("p0", "p1", "p2"):
                plant.say("part_id", name, place=place)
                plant.now += 10 * SECOND
        shop.judge()
        shop.at_cmm("p1", bore=4.0)
        assert [(v.place, v.verdict) for v in of(shop.rows, Verdict) if v.revision == 2] == [(found, "fail")]


def test_the_memory_is_bounded(plant: Any) -> None:
    mill = PartConfig(machine="mill", id="part_id", remember=3)
    shop = Shop(plant, configured(STATION, mill, cmm__bore=(5.0, 6.0)))
    shop.mill(*(f"p{i}" for i in range(8)))
    for i in (1, 2, 4, 5):
        shop.at_cmm(f"p{i}", bore=4.0)
    assert [v.id for v in of(shop.rows, Verdict) if v.revision == 2] == ["p4", "p5"]


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ({"id": "a", "part": "b", "measure": ["c"]}, "id"),
        ({"part": "b"}, "part"),
        ({"id": "a", "of": "mill"}, "of"),
        ({"id": "a", "nested": 3, "split": ","}, "nested"),
        ({"counter": "a", "nested": 3}, "nested"),
        ({"id": "a", "measure": ["c"], "hold": ["c"]}, "measure"),
    ],
)
def test_configurations_that_make_no_sense(part: dict[str, Any], key: str) -> None:
    config = msgspec.convert({"parts": [{"machine": "m", **part}]}, AnalyticsConfig)
    assert f"part[0].{key}" in dict(validate(config))


def test_cuts_and_crashes_change_no_revision(plant: Any) -> None:
    """Two stations say things of parts of one mill at the same time, some before the part is made."""
    random = np.random.default_rng(3)
    gauge = Place("site", "area", "line", "gauge")
    stations = (STATION, msgspec.structs.replace(STATION, machine="gauge"))
    config = configured(*stations, mill__diameter=(9.8, 10.2), cmm__bore=(5.0, 6.0), gauge__bore=(5.0, 6.0))
    configure = plant.configure(config)
    said: list[Any] = []
    for i in range(25):
        plant.part(f"p{i % 18}", float(random.normal(10, 0.1)), tool="T1")
        for place in (CMM, gauge):
            plant.say("measured_id", f"p{random.integers(0, 18)}", place=place)
            plant.say("bore", float(random.normal(5.5, 0.3)), place=place)
            plant.say(("polished", "hold", "released", "visual")[random.integers(0, 4)], "ok", place=place)
        said += [plant.readings(), plant.silence()[0]]
    said += plant.silence()

    def fold(calls: list[int], crashes: set[int]) -> dict[str, list[Any]]:
        out: list[Any] = []
        engine = Engine(plant.table)
        bounds = sorted({0, len(said), *(c for c in calls if c < len(said))})
        engine.fold([configure])
        for i, (a, b) in enumerate(pairwise(bounds)):
            out += engine.fold(said[a:b])
            if i in crashes:
                saved = engine.snapshot()
                engine = Engine(plant.table)
                engine.restore(saved)
                assert engine.snapshot() == saved
        return {m: [r for r in out if r.place.machine == m] for m in ("mill", "cmm", "gauge")}

    whole = fold([], set())
    assert sum(v.revision > 1 for v in of(whole["mill"], Verdict)) > 20
    times = [v.time for v in of(whole["mill"], Verdict)]
    assert len(set(times)) == len(times)

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.integers(1, len(said)), max_size=15), st.sets(st.integers(0, 15)))
    def same(calls: list[int], crashes: set[int]) -> None:
        assert fold(calls, crashes) == whole

    same()
    assert fold(list(range(len(said))), set(range(0, len(said), 5))) == whole
