"""Report of capability from either store: which values, which gates, what is not stated and why, and the alarm load."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.capabilityreport import summary
from edge.config import load
from fieldlab.cli import main
from fieldlab.model import (
    Batch,
    ChartPoint,
    Finding,
    Place,
    Record,
    RecordKind,
    SignalInfo,
    SignalKey,
    SignalTable,
    Verdict,
)
from ingest.journal import Journal
from ingest.stores import load_kind
from ingest.stores.base import Reader, StoreContext

SECOND = 1_000_000_000
T0 = 1_763_900_000 * SECOND
MILL = Place("drachten", "shavers", "3", "mill")
PARTS = 300
CONFIG = """
[agent]
name = "line-3"
data = "data"
[[source]]
kind = "mqtt"
url = "mqtt://127.0.0.1:1"
topics = ["fieldlab/#"]
[[part]]
machine = "mill"
id = "part_id"
[[chart]]
name = "size"
signals = ["mill/diameter"]
[[chart]]
name = "watts"
signals = ["mill/power"]
per = "10s"
[[signal]]
match = "mill/diameter"
uncertainty = 0.006
"""


def records(table: SignalTable) -> list[Record]:
    """300 parts of 100 s: diameters are fine, load is skewed, temperature drifts, power alarmed, the door is stuck."""
    rng = np.random.default_rng(12)
    diameter = rng.normal(25.0, 0.005, PARTS)
    end = T0 + (np.arange(PARTS) + 1) * 100 * SECOND
    values = {
        "load": rng.gamma(4.0, 5.0, PARTS), "temperature": rng.normal(60, 1, PARTS) + np.arange(PARTS) / 50,
        "power": rng.normal(900, 10, PARTS), "door": np.ones(PARTS), "speed": rng.normal(1, 1, PARTS),
    }  # fmt: skip
    limits: dict[str, Any] = {
        "diameter": {"lsl": 24.97, "usl": 25.03, "target": 25.0, "unit": "mm"}, "load": {"usl": 80.0, "unit": "%"},
        "temperature": {"lsl": 40.0, "usl": 64.5, "unit": "°C"}, "power": {"lsl": 850.0, "usl": 950.0, "unit": "W"},
        "door": {"lsl": 0.0, "usl": 2.0}, "speed": {},
    }  # fmt: skip
    infos = tuple(SignalInfo(key=SignalKey(MILL, name), **limits[name]) for name in limits)
    alarms = [
        Finding(
            time=T0 + (500 + 60 * i) * SECOND, place=MILL, signal="power", chart="watts", rule="1", id=f"{i:016x}",
            detail="mean of power: 950 W is above the control limit",
        )
        for i in range(25)
    ]  # fmt: skip
    chance = Finding(time=T0 + 9 * SECOND, place=MILL, signal="diameter", chart="size", rule="1", id="f" * 16)
    learning = Finding(
        time=T0, place=MILL, signal="diameter", chart="size", rule="baseline", id="0123456789abcdee",
        severity="warning", detail="limits are not frozen",
    )  # fmt: skip
    point = ChartPoint(
        time=int(end[-1]), place=MILL, signal="diameter", chart="size", statistic=25.0, center=25.0, ucl=25.016,
        lcl=24.984, limits_version=2,
    )  # fmt: skip
    verdicts = tuple(
        Verdict(time=int(t), place=MILL, id=f"p{i}", start=int(t) - 90 * SECOND, features={"diameter.mean": float(d)})
        for i, (t, d) in enumerate(zip(end, diameter, strict=True))
    )
    found = [
        Record(1, RecordKind.SIGNAL, T0, rows=infos),
        Record(2, RecordKind.PART, T0, rows=verdicts),
        Record(3, RecordKind.FINDING, T0, rows=(*alarms, chance, learning)),
        Record(4, RecordKind.CHART, T0, rows=(point,)),
    ]
    for i, (name, series) in enumerate(values.items()):
        index = table.index(SignalKey(MILL, name))
        found.append(Record(5 + i, RecordKind.READINGS, T0, batch=Batch.of([index] * PARTS, end, series)))
    bad = table.index(SignalKey(MILL, "power"))
    nothing = Batch.of([bad], np.array([int(end[-1]) + SECOND]), np.array([np.nan]), np.array([0x80310000], np.uint32))
    return [*found, Record(20, RecordKind.READINGS, T0, batch=nothing)]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    config = tmp_path / "fieldlab.toml"
    config.write_text(CONFIG, "utf-8")
    (tmp_path / "data").mkdir()
    return config


def fill(kind_name: str, request: Any, data: Path) -> tuple[Any, Reader]:
    kind, table = load_kind(kind_name), SignalTable()
    if kind_name == "embedded":
        config = kind.config()
    else:
        influxd = request.getfixturevalue("influxd")
        config = kind.config(url=influxd.url, api="v1", bucket=influxd.create_database())
    store, reader = kind.create(config, StoreContext(name=kind_name, agent="line-3", data=data), table)
    assert reader is not None
    assert store.write(records(table)) == []
    return store, reader


@pytest.fixture(params=["embedded", "influxdb"])
def found(request: Any, files: Path) -> Iterator[dict[str, Any]]:
    store, reader = fill(request.param, request, files.parent)
    yield summary(reader, load(files), 0)
    store.close()


def test_every_signal_has_its_method_and_its_reasons(found: dict[str, Any]) -> None:
    by = {row["name"]: row for row in found["signals"]}
    assert (set(by), found["without_limits"]) == ({"diameter", "load", "temperature", "power", "door"}, 1)
    size = by["diameter"]
    assert (size["n"], size["each"], size["method"]) == (PARTS, "mean of a part", "normal")
    assert size["stability"]["stable"]
    assert size["indices"]["Cpk"]["low"] < 2.0 < size["indices"]["Cpk"]["high"]
    assert size["not_stated"] == {}
    assert size["limits"] == {"chart": "size", "version": 2, "center": 25.0, "ucl": 25.016, "lcl": 24.984}
    assert (size["uncertainty"], size["uncertainty_of_tolerance"]) == pytest.approx((0.006, 0.1))
    assert by["load"]["method"] == "pearson"
    assert set(by["load"]["indices"]) == {"Cpk", "Cpu", "Ppk", "Ppu"}
    assert by["load"]["not_stated"]["Cp"] == "it needs both LSL and USL"
    assert "the mean moves" in by["temperature"]["not_stated"]["Cpk"]
    assert by["temperature"]["above_usl"] > 0
    assert "25 findings of chart watts, where chance gives 8.1; the newest:" in by["power"]["not_stated"]["Cp"]
    assert size["findings_words"] == ["1 finding of chart size, where chance gives 0.81"], "that is no unstable process"
    assert {"Pp", "Ppk"} <= set(by["power"]["indices"])
    assert by["power"]["n"] == PARTS, "a reading that is not Good is none"
    assert by["door"]["indices"] == {}
    assert "300 values show 1 different ones" in by["door"]["not_stated"]["Ppk"]


def test_alarm_load_stands_beside_its_design(found: dict[str, Any]) -> None:
    """8 h 20 min of a chart with a value a part and of one with a value every 10 s, both 1 in 370."""
    load = {row["chart"]: row for row in found["load"]}
    shifts = 30_000 / 28_800
    assert load["size"]["shifts"] == pytest.approx(shifts, rel=0.01)
    assert load["size"]["designed_a_shift"] == pytest.approx(PARTS / 370.4 / shifts, rel=0.01)
    assert load["watts"]["designed_a_shift"] == pytest.approx(2880 / 370.4, rel=1e-3)
    assert (load["size"]["findings"], load["watts"]["findings"]) == (1, 25)  # not that limits were not frozen
    assert load["size"]["chance"] == pytest.approx(1 - np.exp(-PARTS / 370.4), abs=1e-2)
    assert load["watts"]["chance"] < 1e-5
    (family,) = found["machines"]
    assert (family["charts"], family["findings"]) == (2, 26)
    assert family["designed_a_shift"] == pytest.approx(sum(row["designed_a_shift"] for row in found["load"]))


def test_command(files: Path, request: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Journal(files.parent / "data" / "journal.db").close()
    store, _ = fill("embedded", request, files.parent / "data")
    store.close()
    arguments = ["report", "capability", "--config", str(files)]
    assert main([*arguments, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in found["signals"] if row["below_floor"]} >= {"temperature"}
    assert main(arguments) == 1
    text = capsys.readouterr().out
    assert "mill/diameter [mm]" in text
    assert re.search(r"FAULT drachten/shavers/3/mill/temperature: \d+ of 300 values are beyond", text)
    assert "Not stated, because" in text
    assert "Alarm load" in text
    assert "less than 1.22%" in text, "0 of 300, exactly: 1 - 0.025^(1/300)"
    assert main([*arguments, "--format", "html", "--out", str(files.parent / "page.html")]) == 1
    page = (files.parent / "page.html").read_text("utf-8")
    assert page.count("<svg") == 1 + 2 * 5
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "USL 25.03" in page
    assert main([*arguments, "--last", "1s", "--json"]) == 0
    nothing = json.loads(capsys.readouterr().out)["signals"]
    assert {row["n"] for row in nothing} == {0}
    assert all(row["not_stated"]["Ppk"] == "0 values show no spread" for row in nothing)
