"""Reports of parts from either store: counts, reasons, genealogy both ways over machines, and who saw a tool."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.partreport import ask, genealogy, saw, summary
from fieldlab.cli import main
from fieldlab.model import Finding, PartEvent, Place, Record, RecordKind, SignalTable, Verdict
from ingest.journal import Journal
from ingest.stores import load_kind
from ingest.stores.base import Reader, Store, StoreContext

SECOND = 1_000_000_000
T0 = 1_763_900_000 * SECOND
SAW, MILL, ASSEMBLY = (Place("drachten", "shavers", "3", m) for m in ("saw", "mill", "assembly"))
FINDING = "0123456789abcdef"
CONFIG = """
[agent]
name = "line-3"
data = "data"
[[source]]
kind = "mqtt"
url = "mqtt://127.0.0.1:1"
topics = ["fieldlab/#"]
"""


def line() -> Iterator[Any]:
    """Bar B1 is sawn into six blanks; each is milled, by tool T1 and from the fourth on T2; two make an assembly."""
    for i in range(6):
        at = T0 + i * 100 * SECOND
        blank, body, tool = f"blank-{i}", f"body-{i}", "T1" if i < 3 else "T2"
        yield PartEvent(time=at, place=SAW, event="consume", id=blank, other="B1", text="bar")
        yield Verdict(time=at + SECOND, place=SAW, id=blank, verdict="pass", start=at)
        yield PartEvent(time=at + 2 * SECOND, place=MILL, event="start", id=body)
        yield PartEvent(time=at + 2 * SECOND, place=MILL, event="consume", id=body, other=blank, text="blank_id")
        yield PartEvent(time=at + 2 * SECOND + 1, place=MILL, event="consume", id=body, other=tool, text="tool")
        bad = f"mean of diameter 10.{7 + i} mm is above USL 10.5 mm by 0.{2 + i} mm"
        yield Verdict(
            time=at + 50 * SECOND, place=MILL, id=body, start=at + 2 * SECOND, genealogy={"tool": tool},
            verdict="fail" if i in (3, 4) else "pass", reasons=(bad,) if i in (3, 4) else (),
        )  # fmt: skip
        if i % 2:
            for k in (i - 1, i):
                yield PartEvent(
                    time=at + 60 * SECOND + k, place=ASSEMBLY, event="consume", id=f"shaver-{i // 2}",
                    other=f"body-{k}", text="body_id",
                )  # fmt: skip
            yield Verdict(time=at + 70 * SECOND, place=ASSEMBLY, id=f"shaver-{i // 2}", start=at + 59 * SECOND)
    yield Verdict(
        time=T0 + 450 * SECOND + 1, place=MILL, id="body-4", revision=2, verdict="pass", start=T0 + 402 * SECOND,
        genealogy={"tool": "T2", "rework": "burr"},
    )  # fmt: skip


def records() -> list[Record]:
    raised = Finding(
        time=T0 + 320 * SECOND, place=MILL, signal="diameter", chart="size", rule="1", id=FINDING, part="body-3"
    )
    cleared = Finding(
        time=T0 + 900 * SECOND, place=MILL, signal="diameter", chart="size", rule="1", id=FINDING, revision=2,
        state="cleared",
    )  # fmt: skip
    return [
        Record(1, RecordKind.PART, T0, rows=tuple(line())),
        Record(2, RecordKind.FINDING, T0, rows=(raised, cleared)),
    ]


@pytest.fixture(params=["embedded", "influxdb"])
def reader(request: Any, tmp_path: Path) -> Iterator[Reader]:
    kind = load_kind(request.param)
    if request.param == "embedded":
        config = kind.config()
    else:
        influxd = request.getfixturevalue("influxd")
        config = kind.config(url=influxd.url, api="v1", bucket=influxd.create_database())
    store: Store
    store, found = kind.create(config, StoreContext(name="here", agent="a", data=tmp_path), SignalTable())
    assert found is not None
    assert store.write(records()) == []
    yield found
    store.close()


def test_summary(reader: Reader) -> None:
    found = summary(reader, 0)
    assert found["totals"] == {
        "made": 15, "pass": 14, "suspect": 0, "fail": 1, "reworked": 1, "revised": 1, "first_pass_yield": 13 / 15,
    }  # fmt: skip
    by = {m["machine"].rsplit("/", 1)[-1]: m for m in found["machines"]}
    assert (by["mill"]["made"], by["mill"]["fail"], by["mill"]["first_pass_yield"]) == (6, 1, 4 / 6)
    assert [(r["parts"], r["reason"]) for r in found["reasons"]] == [
        (1, "mean of diameter # mm is above USL # mm by # mm")
    ]
    assert [p["id"] for p in found["parts"]] == ["body-3"]
    assert summary(reader, T0 + 540 * SECOND)["totals"]["made"] == 2


def test_genealogy_both_ways(reader: Reader) -> None:
    found = genealogy(reader, "shaver-1")
    assert {(b["level"], b["to"], b["as"]) for b in found["backward"]} == {
        (1, "body-2", "body_id"), (1, "body-3", "body_id"), (2, "blank-2", "blank_id"), (2, "blank-3", "blank_id"),
        (2, "T1", "tool"), (2, "T2", "tool"), (3, "B1", "bar"),
    }  # fmt: skip
    assert [v["verdict"] for b in found["backward"] if b["to"] == "body-3" for v in b["verdicts"]] == ["fail"]
    bar = genealogy(reader, "B1")
    assert (bar["known"], bar["verdicts"], bar["backward"]) == (True, [], [])
    assert sorted({f["to"] for f in bar["forward"] if f["level"] == 3}) == ["shaver-0", "shaver-1", "shaver-2"]
    again = genealogy(reader, "body-4")
    assert [(v["revision"], v["verdict"]) for v in again["verdicts"]] == [(1, "fail"), (2, "pass")]
    assert not genealogy(reader, "nothing")["known"]


def test_which_parts_saw_the_tool_after_the_finding(reader: Reader) -> None:
    """body-3 was on the machine when it was raised: it saw the tool, although that was mounted before."""
    found = saw(reader, "tool=T2", FINDING)
    assert found["since"] == T0 + 320 * SECOND, "when it was raised, not when it was cleared"
    assert [(p["id"], p["verdict"], p["into"]) for p in found["parts"]] == [
        ("body-3", "fail", ["shaver-1"]), ("body-4", "pass", ["shaver-2"]), ("body-5", "pass", ["shaver-2"]),
    ]  # fmt: skip
    assert saw(reader, "T2", FINDING)["parts"] == found["parts"]
    assert saw(reader, "lot=T2", FINDING)["parts"] == []
    assert [p["id"] for p in saw(reader, "T1", "2025-11-23T12:16:00Z")["parts"]] == ["body-2"]
    for nonsense in ("f" * 16, "yesterday"):
        with pytest.raises(ValueError, match=r"no finding|not understood"):
            ask(reader, {"saw": "T1", "since": nonsense})


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "fieldlab.toml"
    config.write_text(CONFIG, "utf-8")
    (tmp_path / "data").mkdir()
    Journal(tmp_path / "data" / "journal.db").close()
    kind = load_kind("embedded")
    context = StoreContext(name="embedded", agent="line-3", data=tmp_path / "data")
    store, _ = kind.create(kind.config(), context, SignalTable())
    store.write(records())
    store.close()

    def run(*arguments: str) -> tuple[int, str]:
        code = main(["report", "parts", "--config", str(config), *arguments])
        return code, capsys.readouterr().out

    code, out = run()
    assert code == 1, "a part failed"
    assert "made 15: pass 14, suspect 0, fail 1" in out
    assert "first pass yield 86.7 %" in out
    code, out = run("--json", "--part", "shaver-2")
    assert (code, json.loads(out)["part"]) == (0, "shaver-2")
    code, out = run("--saw", "tool=T2", "--since", FINDING)
    assert code == 1
    assert "body-3" in out
    assert "shaver-1" in out
    code, out = run("--format", "html")
    assert "<svg" in out
    assert "body-3" in out
    assert "<script" not in out
    assert run("--part", "no such part")[0] == 1
