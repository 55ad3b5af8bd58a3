"""Limits have versions: frozen anew or brought back where a person asks, one set a recipe, the same at every replay."""

from typing import Any

import numpy as np
import pytest

from analytics.config import AnalyticsConfig, ChartConfig, PartConfig
from analytics.engine import Engine
from fieldlab.model import ChartPoint, Finding, Record, Verdict

SECOND = 1_000_000_000
LOAD = "site/area/line/mill/load"


def chart(**also: Any) -> ChartConfig:
    """One value a reading, limits from 30 of them."""
    given: dict[str, Any] = {"name": "c", "signals": ("mill/load",), "per": "reading", "baseline": 30}
    return ChartConfig(**(given | also))


def values(plant: Any, seed: int, n: int, mean: float = 0.0) -> Any:
    """n readings, one a second."""
    for x in np.random.default_rng(seed).normal(mean, 1.0, n):
        plant.say("load", float(x))
        plant.now += SECOND
    return plant.readings()


def wish(plant: Any, **detail: Any) -> Any:
    return plant.control("freeze", **{"id": "w", "chart": "c"} | detail)


def told(engine: Engine) -> list[tuple[bool, str, int]]:
    return [(a.done, a.words, a.version) for a in engine.asked()]


def fold(engine: Engine, plant: Any, *records: Record) -> list[Any]:
    return engine.fold([*records, *plant.silence()])


@pytest.mark.parametrize("kind", ["individuals", "ewma", "residual", "xbar-s", "t2", "mewma"])
def test_frozen_anew_and_brought_back(plant: Any, kind: str) -> None:
    """A shifted process: new limits on the newest values, by a person; then the old ones again, exactly."""
    vector = kind in ("t2", "mewma")
    also: dict[str, Any] = {"subgroup": 2} if kind == "xbar-s" else {}
    also |= {"signals": ("mill/load", "mill/power"), "baseline": 60, "arl0": 5000.0} if vector else {}
    engine = plant.engine(AnalyticsConfig(charts=(chart(kind=kind, on_unstable="warn", **also),)))

    def more(seed: int, n: int, mean: float) -> Any:
        rng = np.random.default_rng(seed)
        for x in rng.normal(mean, 1.0, n):
            plant.say("load", float(x))
            if vector:
                plant.say("power", float(rng.normal(mean)))
            plant.now += SECOND
        return plant.readings()

    fold(engine, plant, more(1, 60, 0.0))
    first = engine.versions()
    assert [(v["version"], v["in_force"], v.get("by", "")) for v in first] == [(1, True, "")]
    raised = [r for r in fold(engine, plant, more(2, 70, 8.0)) if isinstance(r, Finding) and r.rule != "baseline"]
    assert any(f.state == "raised" for f in raised)
    open_now = raised[-1].state == "raised"
    rows = fold(engine, plant, wish(plant))
    assert told(engine) == [(True, "version 2 is frozen", 2)]
    if open_now:
        cleared = [r for r in rows if isinstance(r, Finding)]
        assert [(f.state, f.detail) for f in cleared] == [("cleared", "version 2 is frozen, asked for by anna")]
    second = engine.versions()
    assert [(v["version"], v["in_force"], v.get("by", "")) for v in second] == [(1, False, ""), (2, True, "anna")]
    assert second[0] == first[0] | {"in_force": False, "chosen": False}
    calm = [r for r in fold(engine, plant, more(3, 20, 8.0)) if isinstance(r, Finding)]
    assert calm == [], "the shifted process is the normal one now"
    fold(engine, plant, wish(plant, version=1))
    assert told(engine)[-1] == (True, "version 1 is back in force", 1)
    assert [v["in_force"] for v in engine.versions()] == [True, False]
    assert engine.versions()[0] == first[0]
    if kind != "residual":  # it predicts from the newest values: a level that lasts is no surprise to it
        again = [r for r in fold(engine, plant, more(4, 20, 8.0)) if isinstance(r, Finding)]
        assert again[0].limits_version == 1


def test_what_makes_no_sense_is_refused_in_words(plant: Any) -> None:
    engine = plant.engine(AnalyticsConfig(charts=(chart(),)))
    fold(engine, plant, values(plant, 1, 20))
    fold(engine, plant, wish(plant))
    fold(engine, plant, values(plant, 2, 20))
    for detail in ({"version": 7}, {"version": 1}, {"chart": "d"}, {"signal": "mill/power"}, {"recipe": "P1"}):
        fold(engine, plant, wish(plant, **detail))
    fold(engine, plant, wish(plant, items=[[1.0]] * 5))
    fold(engine, plant, wish(plant, items=[[1.0]] * 50))
    words = [w for done, w, _ in told(engine) if not done]
    assert len(words) == len(engine.asked()) == 8
    for found, expected in zip(words, (
        "limits are still being learned: 20 of 30 values", "there is no version 7", "version 1 is in force already",
        "no chart 'd' has limits of any signal", "no chart 'c' has limits of mill/power", "for 'P1'",
        "5 values are too few", "these values are no baseline: all 50 values are 1",
    ), strict=True):  # fmt: skip
        assert expected in found
    assert [v["version"] for v in engine.versions()] == [1]
    ignored = engine.counters["ignored_controls"]
    fold(engine, plant, plant.control("freeze", chart=3))
    assert engine.counters["ignored_controls"] == ignored + 1


def test_items_that_the_wish_brings(plant: Any) -> None:
    engine = plant.engine(AnalyticsConfig(charts=(chart(),)))
    fold(engine, plant, values(plant, 1, 40))
    items = [[float(x)] for x in np.random.default_rng(5).normal(50.0, 2.0, 200)]
    fold(engine, plant, wish(plant, signal=LOAD, items=items))
    newest = engine.versions()[-1]
    assert (newest["version"], newest["n"], newest["by"]) == (2, 200, "anna")
    assert newest["center"] == pytest.approx(50.0, abs=0.5)


def test_numbers_go_on_when_the_chart_is_configured_anew(plant: Any) -> None:
    engine = plant.engine(AnalyticsConfig(charts=(chart(),)))
    fold(engine, plant, values(plant, 1, 40))
    fold(engine, plant, plant.configure(AnalyticsConfig(charts=(chart(baseline=40),))), values(plant, 2, 50))
    found = [(v["version"], v["in_force"], v["may_return"]) for v in engine.versions()]
    assert found == [(1, False, False), (2, True, True)]
    fold(engine, plant, wish(plant, version=1))
    assert "another configuration" in engine.asked()[-1].words


def recipes(plant: Any, per: str) -> list[Record]:
    """Program A at 0, then B at 30, A again, B again; 80 values each, and what they are fed by."""
    records = []
    for n, program in enumerate("ABAB"):
        plant.say("program", program)
        records.append(plant.readings())
        for x in np.random.default_rng(n).normal(30.0 if program == "B" else 0.0, 1.0, 80):
            plant.now += SECOND
            if per == "part":
                plant.say("part_id", f"{program}{plant.now}")
            plant.say("load", float(x), plant.now + SECOND // 2)
        records.append(plant.readings())
        plant.now += SECOND
    plant.now += SECOND
    return [*records, *plant.silence()]


@pytest.mark.parametrize("per", ["reading", "part", "1s"])
def test_each_recipe_has_limits_of_its_own(plant: Any, per: str) -> None:
    parts = (PartConfig(machine="mill", id="part_id"),) if per == "part" else ()
    config = AnalyticsConfig(charts=(chart(per=per, limits_by=("program",), arl0=100_000.0),), parts=parts)
    engine = plant.engine(config)
    rows = engine.fold(recipes(plant, per))
    versions = {v["recipe"]: v for v in engine.versions()}
    assert {r: (v["version"], round(v["center"], -1), v["in_force"]) for r, v in versions.items()} == {
        "A": (1, 0, False), "B": (2, 30, True),
    }  # fmt: skip
    assert [r for r in rows if isinstance(r, Finding) and r.rule != "baseline"] == []
    points = [r.limits_version for r in rows if isinstance(r, ChartPoint) and r.limits_version]
    assert [v for i, v in enumerate(points) if i == 0 or points[i - 1] != v] == [1, 2, 1, 2]
    if per == "part":
        assert [r.limits_versions["c"] for r in rows if isinstance(r, Verdict)][-1] == 2
    fold(engine, plant, wish(plant))
    assert engine.versions()[-1]["recipe"] == "B", "what runs now, and nothing else"
    assert [(v["version"], v["in_force"], v["chosen"]) for v in engine.versions()] == [
        (1, False, True), (2, False, False), (3, True, True),
    ]  # fmt: skip
    fold(engine, plant, wish(plant, recipe="A", version=2))
    assert engine.asked()[-1].words == "version 2 is of B"


def test_without_recipes_of_its_own_the_chart_would_not_fit_both(plant: Any) -> None:
    engine = plant.engine(AnalyticsConfig(charts=(chart(),)))
    rows = engine.fold(recipes(plant, "reading"))
    assert any(isinstance(r, Finding) and r.state == "raised" and r.statistic > 20 for r in rows)


@pytest.mark.parametrize("per", ["reading", "part", "1s"])
def test_the_same_journal_gives_the_same(plant: Any, per: str) -> None:
    """However it is cut, and with a restart behind every record."""
    parts = (PartConfig(machine="mill", id="part_id"),) if per == "part" else ()
    config = AnalyticsConfig(charts=(chart(per=per, limits_by=("program",), arl0=100_000.0),), parts=parts)
    records = [plant.configure(config), *recipes(plant, per), wish(plant), *plant.silence()]
    plant.say("load", 99.0)
    records += [plant.readings(), *plant.silence(), wish(plant, version=1), wish(plant, version=2), *plant.silence()]
    whole = Engine(plant.table)
    rows = whole.fold(records)
    pieces, single = Engine(plant.table), []
    for record in records:
        cut = [record] if record.batch is None else [
            Record(0, record.kind, record.time, batch=record.batch.take(np.arange(i, min(i + 7, len(record.batch)))))
            for i in range(0, len(record.batch), 7)
        ]  # fmt: skip
        for piece in cut:
            single += pieces.fold([piece])
            pieces, before = Engine(plant.table), pieces
            pieces.restore(before.snapshot())
    assert single == rows
    assert pieces.snapshot() == whole.snapshot()
    assert len(whole.asked()) == 3


def test_another_recipe_ends_what_was_open(plant: Any) -> None:
    engine = plant.engine(AnalyticsConfig(charts=(chart(limits_by=("program",)),)))
    plant.say("program", "A")
    fold(engine, plant, values(plant, 1, 40), values(plant, 2, 5, 30.0))
    plant.say("program", "B")
    rows = fold(engine, plant, values(plant, 3, 1, 60.0))
    assert [(r.state, r.detail) for r in rows if isinstance(r, Finding)] == [
        ("cleared", "B runs now: its limits are in force")
    ]
    plant.say("program", "A")
    again = [r for r in fold(engine, plant, values(plant, 4, 3, 30.0)) if isinstance(r, Finding)]
    assert [r.state for r in again] == ["raised"], "a new excursion, under the limits of A"


def test_a_window_of_two_recipes_belongs_to_neither(plant: Any) -> None:
    engine = plant.engine(AnalyticsConfig(charts=(chart(per="10s", limits_by=("program",), arl0=100_000.0),)))
    plant.say("program", "A")
    fold(engine, plant, values(plant, 1, 400))
    fold(engine, plant, values(plant, 2, 5))
    plant.say("program", "B")
    rows = fold(engine, plant, values(plant, 3, 5, 90.0), values(plant, 4, 20, 90.0))
    assert [r for r in rows if isinstance(r, Finding)] == []
    assert engine.counters["unusable"] == 1
