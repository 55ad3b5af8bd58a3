"""A configuration that asks for any kind of chart runs end to end: file, journal, judgement, rows."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from analytics.config import COUNT_KINDS, KINDS, VECTOR_KINDS
from fieldlab.cli import main

SOURCE = '[[source]]\nkind = "replay"\nmachine = "plant"\n'
ROWS, SHIFT = 700, 500
XBAR = {"subgroup": 5, "baseline": 60}
CHARTS: dict[str, dict[str, Any]] = {
    "individuals": {},
    "xbar-r": XBAR,
    "xbar-s": XBAR,
    "ewma": {},
    "cusum": {"head_start": 0.5},
    "residual": {"signals": ["plant/slow"], "lags": 2},
    "short-run": {"signals": ["plant/made"], "recipe": "plant/recipe", "nominals": {"7": 10.0, "2": 25.0}},
    "p": {"signals": ["plant/bad"], "size": "plant/inspected"},
    "np": {"signals": ["plant/bad"], "n": 50},
    "c": {"signals": ["plant/bad"]},
    "u": {"signals": ["plant/bad"], "size": "plant/inspected"},
    "laney-p": {"signals": ["plant/bad"], "size": "plant/inspected"},
    "laney-u": {"signals": ["plant/bad"], "n": 50},
}


def recording(path: Path, rows: int = ROWS) -> dict[str, NDArray[Any]]:
    """Values in control, and off from row 500 on; counts of 50 inspected; a recipe that changes every 50 rows."""
    random = np.random.default_rng(12)
    late = np.arange(rows) >= SHIFT
    noise, slow = random.normal(size=rows), np.zeros(rows)
    for i in range(1, rows):
        slow[i] = 0.9 * slow[i - 1] + noise[i]
    recipe = np.where(np.arange(rows) // 50 % 2 == 0, 7, 2)
    columns: dict[str, NDArray[Any]] = {
        "x": random.normal(size=rows) + 5.0 * late,
        "slow": slow + 80.0 * late,
        "made": np.where(recipe == 7, 10.0, 25.0) + 0.1 * random.normal(size=rows) + 1.0 * late,
        "recipe": recipe,
        "bad": random.poisson(np.where(late, 25.0, 4.0)).clip(max=50),
        "inspected": np.full(rows, 50),
    }
    with path.open("w") as file:
        file.write(",".join(columns) + "\n")
        file.writelines(",".join(str(c) for c in row) + "\n" for row in zip(*columns.values(), strict=True))
    return columns


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


def play(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, str]], dict[str, Any]]:
    (folder / "replay.toml").write_text(text)
    out = folder / "out.csv"
    capsys.readouterr()
    assert main(["replay", str(folder / "x.csv"), str(folder / "replay.toml"), "--out", str(out), "--json"]) == 0
    with out.open(newline="") as rows:
        return list(csv.DictReader(rows)), json.loads(capsys.readouterr().out)


def table(kind: str, **keys: Any) -> str:
    lines = [f"{k} = {toml(v)}" for k, v in ({"signals": ["plant/x"], "baseline": 100} | keys).items()]
    return "\n".join(["[[chart]]", f'kind = "{kind}"', *lines]) + "\n"


def test_every_kind_is_here() -> None:
    assert CHARTS.keys() == set(KINDS) - set(VECTOR_KINDS)


@pytest.mark.parametrize("kind", list(CHARTS))
def test_a_chart_of_each_kind(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    columns = recording(tmp_path / "x.csv")
    rows, told = play(tmp_path, SOURCE + table(kind, **CHARTS[kind]), capsys)
    alarms = np.array([row["alarm"] == "1" for row in rows])
    learned = 60 * 5 if kind.startswith("xbar") else 100
    assert len(rows) == ROWS
    assert not alarms[:learned].any()
    assert np.count_nonzero(alarms[learned : SHIFT - 20]) <= 10
    assert np.flatnonzero(alarms[SHIFT:])[0] < 10
    (chart,) = told["charts"]
    (limits,) = chart["limits"].values()
    assert "by design" in limits["note"]
    assert "frozen although" not in limits["note"]
    assert limits["lcl"] <= limits["center"] <= limits["ucl"]
    assert told["counters"]["unusable"] == 0
    statistic = [float(row["statistic"]) if row["statistic"] else np.nan for row in rows]
    if kind in COUNT_KINDS:
        per = 1.0 if kind in ("np", "c") else 50.0
        assert statistic[150] == pytest.approx(columns["bad"][150] / per)
        assert limits["center"] == pytest.approx(columns["bad"][:100].mean() / per)
    elif kind.startswith("xbar"):
        assert statistic[402] == pytest.approx(columns["x"][400:405].mean())
        assert chart["judged"] == (ROWS - learned) // 5
    elif kind == "short-run":
        assert statistic[260] == pytest.approx(columns["made"][260] - 25.0)


def test_recipes_and_sizes_in_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows are seconds: windows of 5 rows; counts and sizes add up, a window belongs to one recipe."""
    columns = recording(tmp_path / "x.csv")
    charts = table("short-run", name="s", per="5s", baseline=40, **CHARTS["short-run"])
    charts += table("p", name="p", per="5s", baseline=40, **CHARTS["p"])
    charts += table("xbar-s", name="x", per="5s", baseline=40, subgroup=0)
    _, told = play(tmp_path, SOURCE + charts, capsys)
    short, share, mean = (next(iter(c["limits"].values())) for c in told["charts"])
    assert abs(short["center"]) < 0.02
    assert share["center"] == pytest.approx(columns["bad"][:200].sum() / 50 / 200)
    assert mean["center"] == pytest.approx(columns["x"][:200].mean(), abs=1e-9)
    assert told["counters"]["unusable"] == 13  # windows behind a change of recipe
    assert [c["judged"] for c in told["charts"]] == [86, 99, 99]


def test_an_unknown_recipe_is_counted_and_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording(tmp_path / "x.csv")
    keys = CHARTS["short-run"] | {"nominals": {"7": 10.0}}
    _, told = play(tmp_path, SOURCE + table("short-run", **keys), capsys)
    assert told["counters"]["unusable"] == ROWS // 2
    assert told["charts"][0]["judged"] == ROWS // 2 - 100


def test_overdispersed_counts_are_told_and_laney_is_proposed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(3)
    rate = random.normal(0.05, 0.01, 200).clip(0.01)
    rows = "".join(f"{c},5000\n" for c in random.binomial(5000, rate))
    (tmp_path / "x.csv").write_text("bad,inspected\n" + rows)
    both = table("p", **CHARTS["p"], name="p") + table("laney-p", **CHARTS["p"], name="laney")
    _, told = play(tmp_path, SOURCE + both, capsys)
    plain, laney = told["charts"]
    assert "frozen although counts differ by more than chance" in plain["limits"]["plant/bad"]["note"]
    assert '`kind = "laney-p"`' in plain["limits"]["plant/bad"]["note"]
    assert plain["alarms"] > 20
    assert laney["alarms"] <= 2


def test_false_alarms_are_shared_by_the_charts_of_a_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows are seconds, 28,800 a shift; three charts without a rate of their own share one false alarm a shift."""
    recording(tmp_path / "x.csv")
    agent = '[agent]\nname = "a"\nfalse_alarms = 1.0\nshift = "8h"\n'
    charts = table("individuals", name="i") + table("ewma", name="e") + table("cusum", name="c", arl0=500)
    charts += table("t2", name="t", signals=["plant/x", "plant/made"])
    _, told = play(tmp_path, agent + SOURCE + charts, capsys)
    notes = {c["chart"]: next(iter(c["limits"].values()))["note"] for c in told["charts"]}
    assert "one false alarm in 86400 values" in notes["i"]
    assert "one false alarm in 86400 values" in notes["e"]
    assert "share of the machine's" in notes["e"]
    assert "one false alarm in 500 values" in notes["c"]
    assert "for 1.16e-05 false alarms a vector" in notes["t"]
