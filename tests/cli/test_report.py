"""`fieldlab report ledger` on the files of an agent that does not run: text, JSON, HTML, and its exit status."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldlab.cli import main
from fieldlab.cli.tables import Page, Table, as_html, as_text, moment, span
from fieldlab.model import Batch, SignalKey
from ingest.gaps import Gaps
from ingest.journal import Journal

SECOND = 1_000_000_000
START = 1_763_900_000 * SECOND
PLACE = "drachten/shavers/3"
CONFIG = """
[agent]
name = "line-3"
data = "data"
[place]
site = "drachten"
area = "shavers"
line = "3"
[[source]]
kind = "mqtt"
url = "mqtt://127.0.0.1:1"
topics = ["fieldlab/#"]
"""
EVIL = "\x1b[2J<script>alert(1)</script>"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A configuration, and what its agent left: 20 readings, one lost, one signal of QoS 0, three gaps."""
    config = tmp_path / "fieldlab.toml"
    config.write_text(CONFIG, "utf-8")
    (tmp_path / "data").mkdir()
    journal = Journal(tmp_path / "data" / "journal.db")
    for name in ("embedded", "embedded.backfill"):
        journal.register(name, stateful=True)
    gaps = Gaps(journal, "line-3")
    sure, unsure = (journal.signals.index(SignalKey.parse(f"{PLACE}/cnc-07/{name}")) for name in ("load", "temp"))
    gaps.claim("opcua-0", sure)
    gaps.claim("mqtt-1", unsure, "from-receipt")
    times = START + np.arange(10) * SECOND
    journal.append(Batch.of([sure] * 10, times, np.arange(10.0)), overflow={sure: 1}).result()
    journal.append(Batch.of([unsure] * 10, times, np.arange(10.0))).result()
    gaps.note("opcua-0", "queue_overflow", {sure: (START + 3 * SECOND, START + 4 * SECOND)}, lost=1)
    gaps.open("opcua-0", "agent_down", {sure: START - 100 * SECOND})
    gaps.end("opcua-0", START, state="ended")
    gaps.close({g.id: 99 for g in gaps.unsettled() if g.cause == "agent_down"}).result(10)
    gaps.open("mqtt-1", "source_down", {unsure: START + 9 * SECOND}, detail=EVIL)
    gaps.close({}).result(10)
    journal.close()
    return config


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main(["report", "ledger", *map(str, arguments)])
    return code, capsys.readouterr().out


def test_json_has_everything(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "--config", files, "--format", "json")
    found: dict[str, Any] = json.loads(out)
    assert (code, found["holds"], found["faults"]) == (0, True, [])
    assert found["totals"]["received"] == found["totals"]["committed"] == 20
    assert found["stores"] == [
        {"name": "embedded", "before": 0, "stored": 0, "dead": 0, "dropped": 0, "left_out": 0, "waiting": 20}
    ]
    by_path = {row["path"]: row for row in found["signals"]}
    load, temp = by_path[f"{PLACE}/cnc-07/load"], by_path[f"{PLACE}/cnc-07/temp"]
    assert (load["overflow"], load["lost"], load["loss"]) == (1, 1, "1 known lost, 1 gap not closed")
    assert (temp["guarantee"], temp["loss"]) == ("from-receipt", "1 gap not closed, unverifiable before receipt")
    assert load["in_store"] == 0, "the store's own count: nothing was forwarded yet"
    gaps = [(g["cause"], g["state"], g["start"], g["end"], g["recovered"], g["lost"]) for g in found["gaps"]]
    assert gaps == [
        ("agent_down", "closed", START - 100 * SECOND, START, 99, 0),
        ("queue_overflow", "ended", START + 3 * SECOND, START + 4 * SECOND, 0, 1),
        ("source_down", "open", START + 9 * SECOND, 0, 0, 0),
    ]
    assert run(capsys, "--config", files, "--json")[1][:20] == out[:20]


def test_last_leaves_older_gaps_out(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = run(capsys, "--config", files, "--last", "8h", "--format", "json")
    found = json.loads(out)
    assert [g["state"] for g in found["gaps"]] == ["open"], "what goes on is of now; the rest was long ago"
    assert found["gap_counts"]["agent_down"] == {"closed": 1}, "their number stays"
    with pytest.raises(SystemExit) as refused:
        run(capsys, "--config", files, "--last", "8 fortnights")
    assert refused.value.code == 2


def test_text_says_what_it_is(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "--config", files)
    assert code == 0
    for words in (
        "Ledger of agent line-3", "received 20 = committed 20 + duplicate 0 + rejected 0",
        "embedded: committed 20 = stored 0 + dead 0 + dropped 0 + waiting 20", "every signal adds up",
        "1 known lost, 1 gap not closed (1.0 s)", "unverifiable before receipt", "queue overflow", "1 min 40 s",
    ):  # fmt: skip
        assert words in out, out
    assert " 0 lost" not in out
    assert "\x1b" not in out, "what machines say does not steer the terminal"


def test_html_is_one_page_that_needs_nothing_and_runs_nothing(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "ledger.html"
    code, out = run(capsys, "--config", files, "--format", "html", "--out", page)
    assert (code, out) == (0, "")
    text = page.read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("http-equiv", "")


def test_what_does_not_add_up_is_exit_1(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "--config", files)
    journal = Journal(files.parent / "data" / "journal.db")
    journal.advance("embedded", 0, keep_from=0, state=b"\x90").result()
    journal.execute(lambda db: db.execute("DELETE FROM record WHERE position = 1")).result()
    journal.close()
    code, out = run(capsys, "--config", files, "--format", "json")
    assert (code, json.loads(out)["holds"]) == (1, False)
    code, out = run(capsys, "--config", files)
    assert code == 1
    assert "FAULT drachten/shavers/3/cnc-07/load: embedded: committed 10 is not" in out
    assert "1 signal DOES NOT ADD UP" in out


def test_without_a_journal_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "fieldlab.toml"
    config.write_text(CONFIG, "utf-8")
    code = main(["report", "ledger", "--config", str(config)])
    assert code == 1
    assert "no agent has run on it yet" in capsys.readouterr().err
    assert not (tmp_path / "data").exists(), "and leaves nothing behind"


def test_it_runs_as_a_command(files: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fieldlab.cli", "report", "ledger", "--format", "json"],
        env={**os.environ, "FIELDLAB_CONFIG": str(files)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["holds"]) == (0, True)


@pytest.mark.parametrize("render", [as_text, as_html])
def test_tables_hold_what_they_are_given(render: Callable[[Page], str]) -> None:
    page = Page(
        "T & <T>", ["a line"], ["a fault"], [Table("empty", ("one", "#two"), []), Table("t", ("a",), [("x\n",)])]
    )
    text = render(page)
    assert "a fault" in text
    assert "x?" in text


def test_times_and_spans() -> None:
    assert moment(START) == "2025-11-23 12:13:20.000Z"
    assert moment(2**63 - 1) == "2262-04-11 23:47:16.854Z"
    assert (span(1.25), span(100), span(7260)) == ("1.2 s", "1 min 40 s", "2 h 1 min")
