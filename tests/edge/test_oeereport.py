"""OEE from either store: states, shifts, gaps and parts; as text, JSON and HTML."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge.config import load
from edge.oee import OeeConfig
from edge.oeereport import summary
from fieldlab.cli import main
from fieldlab.errors import ConfigError
from fieldlab.model import BatchBuilder, Gap, Place, Record, RecordKind, SignalInfo, SignalKey, SignalTable, Verdict
from ingest.journal import Journal
from ingest.stores import load_kind
from ingest.stores.base import Reader, StoreContext

SECOND = 10**9
MINUTE = 60 * SECOND
T0 = round(datetime(2025, 11, 24, 6, tzinfo=UTC).timestamp()) * SECOND  # a Monday
MILL, PRESS, BELT = (Place("drachten", "shavers", "3", name) for name in ("mill", "press", "belt"))
CONFIG = """
[agent]
name = "line-3"
data = "data"
[[source]]
kind = "mqtt"
url = "mqtt://127.0.0.1:1"
topics = ["fieldlab/#"]
[[oee]]
machine = "mill"
cycle = 60.0
shifts = ["Mon-Fri 06:00-07:00", "08:00-10:00"]
"""


def records(table: SignalTable) -> list[Record]:
    """A mill: running, 20 min of motor failure, no data for 20 min; a press with numbers for states; a belt without."""
    builder = BatchBuilder()

    def say(place: Place, name: str, minute: float, value: Any, status: int = 0) -> None:
        builder.add(table.index(SignalKey(place, name)), T0 + round(minute * MINUTE), value, status)

    for minute, state in ((0, "running"), (20, "down"), (40, "running"), (130, "idle"), (140, "running")):
        say(MILL, "state", minute, state)
    say(MILL, "state", 160, None, 0x80310000)
    say(MILL, "state", 180, "running")
    say(MILL, "stop_reason", 21, "motor")
    say(MILL, "stop_reason", 40, "")
    say(MILL, "load", 240, 1.0)
    for minute, number in ((0, 1.0), (30, 7.0), (60, 1.0)):
        say(PRESS, "state", minute, number)
    say(BELT, "load", 0, 1.0)
    parts = tuple(
        Verdict(
            time=T0 + minute * MINUTE, start=T0 + (minute - 1) * MINUTE, place=MILL, id=f"p{minute}",
            verdict="fail" if minute < 5 else "suspect" if minute < 7 else "pass",
        )
        for minute in range(1, 100)
    )  # fmt: skip
    infos = (
        SignalInfo(key=SignalKey(PRESS, "state"), kind="state", states={"1": "Running", "7": "Unheard of"}),
        SignalInfo(key=SignalKey(MILL, "state"), kind="text"),
    )
    return [
        Record(1, RecordKind.SIGNAL, T0, rows=infos),
        Record(2, RecordKind.READINGS, T0, batch=builder.build()),
        Record(3, RecordKind.PART, T0, rows=parts),
    ]


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
def reader(request: Any, files: Path) -> Iterator[Reader]:
    store, reader = fill(request.param, request, files.parent / "data")
    yield reader
    store.close()


def test_a_morning_by_hand(reader: Reader, files: Path) -> None:
    """06:00 to 07:00 and 08:00 to 10:00 are planned: 180 min, 20 of them down, 10 idle, 20 without data, 130 running.

    Parts end at 06:01 to 07:39: 59 of them in planned time, 53 pass.
    """
    found = summary(reader, load(files), 0, lambda _: [], live=False)
    mill, press = found["machines"]
    assert mill["machine"] == MILL.path
    minutes = {k: round(mill[k] / 60, 3) for k in ("planned", "running", "idle", "down", "no_data")}
    assert minutes == {"planned": 160, "running": 130, "idle": 10, "down": 20, "no_data": 20}
    assert (mill["parts"], mill["good"], mill["suspect"], mill["failed"]) == (59, 53, 2, 4)
    assert mill["availability"] == pytest.approx(130 / 160)
    assert mill["performance"] == pytest.approx(59 / 130)
    assert mill["oee"] == pytest.approx(53 / 160)
    assert (mill["least"], mill["most"]) == (pytest.approx(53 / 180), pytest.approx(73 / 180))
    assert [(s["reason"], s["category"], s["seconds"]) for s in mill["stops"]] == [
        ("motor", "down", 1200.0), ("idle", "idle", 600.0)
    ]  # fmt: skip
    assert (round(press["running"]), press["no_data"], press["oee"]) == (1800, 1800.0, None)
    assert press["unknown"] == {"Unheard of": 1800.0}
    assert found["without_state"] == [BELT.path]


def test_since_takes_the_state_in_force_before(reader: Reader, files: Path) -> None:
    found = summary(reader, load(files), T0 + 30 * MINUTE, lambda _: [], live=False)
    assert (found["machines"][0]["down"], found["machines"][0]["parts"]) == (600.0, 30)


def test_a_gap_is_no_data(reader: Reader, files: Path) -> None:
    """The agent was down from 08:30 to 08:50: what the machine did meanwhile, and until it says more, is not known."""
    key = SignalKey(MILL, "state")
    gap = Gap(
        time=T0 + 150 * MINUTE, end=T0 + 155 * MINUTE, key=key, agent="a", cause="agent_down", id="g", state="ended"
    )
    closed = Gap(
        time=T0 + 41 * MINUTE, end=T0 + 50 * MINUTE, key=key, agent="a", cause="source_down", id="h", state="closed"
    )
    mill = summary(reader, load(files), 0, lambda _: [gap, closed], live=False)["machines"][0]
    assert (mill["no_data"], mill["running"]) == (30 * 60, 120 * 60)


def test_a_machine_that_says_nothing_has_no_data(reader: Reader, files: Path) -> None:
    mill = summary(reader, load(files), T0, lambda _: [], live=True)["machines"][0]
    assert mill["running"] == 130 * 60
    assert mill["no_data"] > 24 * 3600


def test_report_of_an_agent_that_does_not_run(request: Any, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Journal(files.parent / "data" / "journal.db").close()
    store, _ = fill("embedded", request, files.parent / "data")
    store.close()

    def said(form: str) -> str:
        assert main(["report", "oee", "--config", str(files), "--format", form]) == 0
        return capsys.readouterr().out

    assert json.loads(said("json"))["machines"][0]["parts"] == 59
    text = said("text")
    assert "33.1 %" in text
    assert "motor" in text
    assert "with it, the OEE is between 29.4 % and 40.6 %" in text
    assert "'Unheard of' (30 min 0 s)" in text
    page = said("html")
    assert page.count("<svg") == 1
    assert "<script" not in page


def test_shifts_by_the_clock_on_the_wall() -> None:
    """Amsterdam is an hour ahead in winter; a night shift ends on the next day; neighbours are one."""
    day = round(datetime(2025, 11, 22, tzinfo=UTC).timestamp()) * SECOND  # a Saturday
    hour = 3600 * SECOND
    week = OeeConfig(shifts=("Mon-Fri 06:00-14:00", "Mon-Fri 14:00-22:00"), zone="Europe/Amsterdam")
    assert week.planned(day, day + 72 * hour) == [(day + 53 * hour, day + 69 * hour)]
    night = OeeConfig(shifts=("Sat-Mon 22:00-06:00",))
    assert night.planned(day, day + 50 * hour) == [
        (day + 22 * hour, day + 30 * hour),
        (day + 46 * hour, day + 50 * hour),
    ]


@pytest.mark.parametrize(
    ("line", "key"), [('shifts = ["Mo 6-14"]', "shifts"), ('zone = "Mars/Base"', "zone"), ("cycle = 0.0", "cycle")]
)
def test_what_is_wrong_is_told(files: Path, line: str, key: str) -> None:
    files.write_text(files.read_text("utf-8").replace("cycle = 60.0", line), "utf-8")
    if key == "shifts":
        files.write_text(
            files.read_text("utf-8").replace('shifts = ["Mon-Fri 06:00-07:00", "08:00-10:00"]', ""), "utf-8"
        )
    with pytest.raises(ConfigError, match=rf"oee\[0\].{key}"):
        load(files)
