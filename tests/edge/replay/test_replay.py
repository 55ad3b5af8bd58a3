"""`fieldlab replay` from file to rows, through the real journal, and the real store if asked."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from analytics.calibration import held_out, limits_at, run, standardise
from analytics.channels import choose
from analytics.charts import make_vector_kind
from analytics.config import ChartConfig
from fieldlab.cli import main

SOURCE = '[[source]]\nkind = "replay"\nmachine = "plant"\n'


def recording(path: Path, length: int = 300, *, shift: float = 6.0) -> NDArray[np.float64]:
    """Three channels and a text column; from row 200 on `level` is off."""
    x = np.random.default_rng(4).normal(size=(length, 3)).cumsum(axis=1)
    x[200:, 1] += shift
    with path.open("w") as file:
        file.write("when;flow;level;speed;note\n")
        for i, row in enumerate(x.tolist()):
            file.write(f"2024-05-01 10:{i // 60:02d}:{i % 60:02d};{row[0]!r};{row[1]!r};{row[2]!r};ok\n")
    return x


def played(folder: Path, text: str, *options: str, file: str = "x.csv") -> list[dict[str, str]]:
    (folder / "replay.toml").write_text(text)
    out = folder / "out.csv"
    assert main(["replay", str(folder / file), str(folder / "replay.toml"), "--out", str(out), *options]) == 0
    with out.open(newline="") as rows:
        return list(csv.DictReader(rows))


def chart(kind: str, **keys: Any) -> str:
    lines = [
        f"{key} = {json.dumps(value)}" for key, value in ({"signals": ["plant/*"], "baseline": 100} | keys).items()
    ]
    return "\n".join(["[[chart]]", f'kind = "{kind}"', *lines]) + "\n"


@pytest.mark.parametrize("kind", ["t2", "mewma", "cva"])
def test_the_command_agrees_with_the_library(tmp_path: Path, kind: str) -> None:
    x = recording(tmp_path / "x.csv")
    rows = played(tmp_path, f'{SOURCE}time = "when"\n{chart(kind, false_alarm_rate=0.01)}')
    assert list(rows[0]) == ["time", "alarm", "statistic", "limit", "contributors"]
    assert [row["time"] for row in rows[:2]] == ["2024-05-01 10:00:00", "2024-05-01 10:00:01"]
    assert len(rows) == 300
    assert {(row["alarm"], row["statistic"]) for row in rows[:100]} == {("0", "")}

    math = make_vector_kind(ChartConfig(kind=kind, signals=("plant/*",)))
    kept = choose(x[:100], drop_drifting=kind != "cva").kept
    baseline = x[:100][:, kept]
    mean, sigma = standardise(baseline)
    limits = limits_at(held_out(math, baseline), 0.01)
    statistics = run(math, math.fit((baseline - mean) / sigma), (x[100:][:, kept] - mean) / sigma)
    known = np.isfinite(statistics).all(axis=1)
    expected: list[bool] = (known & np.any(statistics > limits, axis=1)).tolist()
    assert [row["alarm"] == "1" for row in rows[100:]] == expected
    if len(limits) == 1:
        assert [float(row["statistic"]) for row in rows[100:]] == pytest.approx(statistics[:, 0].tolist())
        assert [float(row["limit"]) for row in rows[100:]] == pytest.approx([limits[0]] * 200)
    assert sum(expected[100:]) > 50
    assert rows[250]["contributors"].startswith("level ")


def test_one_chart_a_signal(tmp_path: Path) -> None:
    x = recording(tmp_path / "x.csv", shift=9.0)
    text = SOURCE + 'time = "when"\ncolumns = ["l*", "flow"]\n' + chart("individuals", name="each", baseline=150)
    rows = played(tmp_path, text, "--chart", "each")
    assert not any(row["alarm"] == "1" for row in rows[:150])
    assert all(row["alarm"] == "1" for row in rows[205:])
    assert float(rows[250]["statistic"]) == x[250, 1]
    assert float(rows[250]["limit"]) < x[250, 1]
    assert rows[250]["contributors"] == "level"


def test_any_chart_alarms_and_the_named_one_is_shown(tmp_path: Path) -> None:
    recording(tmp_path / "x.csv")
    charts = chart("ewma", name="flow", signals=["plant/flow"]) + chart("ewma", name="level", signals=["plant/level"])
    text = f'{SOURCE}time = "when"\n{charts}'
    first, second = played(tmp_path, text), played(tmp_path, text, "--chart", "level")
    assert [row["alarm"] for row in first] == [row["alarm"] for row in second]
    assert first[250]["alarm"] == "1"
    assert (first[250]["contributors"], second[250]["contributors"]) == ("flow", "level")


def test_windows_give_their_judgement_to_every_row(tmp_path: Path) -> None:
    recording(tmp_path / "x.csv", shift=9.0)
    rows = played(
        tmp_path, f'{SOURCE}time = "when"\n{chart("individuals", per="5s", baseline=30, signals=["plant/level"])}'
    )
    assert all(row["statistic"] for row in rows[:295])
    assert {(row["statistic"], row["alarm"]) for row in rows[250:255]} == {(rows[250]["statistic"], "1")}
    assert [row["alarm"] for row in rows[:150]] == ["0"] * 150


def test_without_time_rows_count_at_1_hz(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savetxt(tmp_path / "x.csv", np.random.default_rng(1).normal(size=(150, 4)))
    rows = played(tmp_path, SOURCE + chart("t2"), "--json", file="x.csv")
    assert [row["time"] for row in rows[:3]] == ["0", "1", "2"]
    assert sum(bool(row["statistic"]) for row in rows) == 50
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["readings"], told["charts"][0]["judged"]) == (150, 600, 50)
    assert told["charts"][0]["limits"]["plant/_all"]["n"] == 100


def test_rows_that_share_a_time_and_rows_without_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{1_700_000_000 + i // 2},{np.sin(7 * i):.6f},{np.cos(3 * i):.6f}" for i in range(200)]
    lines[150] = "?,1,2"
    (tmp_path / "x.csv").write_text("t,a,b\n" + "\n".join(lines) + "\n")
    rows = played(tmp_path, f'{SOURCE}time = "t"\n{chart("t2")}', "--json")
    told = json.loads(capsys.readouterr().out)
    assert len(rows) == 200
    assert told["counters"]["rows_without_time"] == 1
    assert told["counters"]["rows_at_one_time"] == 99
    assert (rows[150]["statistic"], rows[150]["alarm"]) == ("", "0")
    assert rows[151]["statistic"]
    assert told["counters"]["late"] == 0


def test_an_unstable_baseline_warns_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.csv").write_text("a\n" + "\n".join(str(i + i % 3) for i in range(200)))
    rows = played(tmp_path, SOURCE + chart("individuals"))
    assert "baseline_unstable" in capsys.readouterr().err
    assert rows[150]["statistic"] == "150.0"


def test_store_keeps_readings_and_judgements_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    duckdb = pytest.importorskip("duckdb")
    recording(tmp_path / "x.csv")
    text = f'[agent]\nname = "bench"\ndata = "var"\nhttp = ""\n{SOURCE}time = "when"\n{chart("t2")}'
    for _ in range(2):  # the same readings again change nothing
        played(tmp_path, text, "--store", "--json")
        told = json.loads(capsys.readouterr().out)
        assert told["stored"]["embedded"] >= 900
    assert (tmp_path / "var" / "journal.db").exists()
    (store,) = (tmp_path / "var").glob("*.duckdb")
    with duckdb.connect(str(store), read_only=True) as db:
        tables = {name for (name,) in db.execute("SELECT table_name FROM information_schema.tables").fetchall()}
        assert {"telemetry", "finding"} <= tables
        assert db.execute("SELECT count(*) FROM telemetry").fetchone() == (900,)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SOURCE + 'time = "datum"\n', "there is no column 'datum'"),
        (SOURCE + 'columns = ["z*"]\n', "no column fits z*"),
        (SOURCE + 'columns = ["note"]\n', "is numeric"),
        ('[[source]]\nkind = "mqtt"\nurl = "mqtt://127.0.0.1"\n', 'needs one [[source]] kind = "replay"'),
        (SOURCE + chart("t2", name="all") + "#", "no chart 'al'; did you mean 'all'"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str) -> None:
    recording(tmp_path / "x.csv")
    (tmp_path / "replay.toml").write_text(text)
    options = ["--chart", "al"] if text.endswith("#") else []
    assert main(["replay", str(tmp_path / "x.csv"), str(tmp_path / "replay.toml"), *options]) == 2
    assert told in capsys.readouterr().err


def test_an_agent_does_not_play_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text(f'[agent]\nname = "a"\nhttp = ""\n{SOURCE}')
    assert main(["agent", str(tmp_path / "a.toml")]) == 2
    assert "fieldlab replay FILE CONFIG" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "a.toml")]) == 0
