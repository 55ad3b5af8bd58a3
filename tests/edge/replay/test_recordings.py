"""Public recordings through the command: set FIELDLAB_RECORDINGS to a folder with `skab/` and `tep/`.

See `python -m benchmarks.analytics --help` for where they come from; they are not part of this tree.
"""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from analytics.calibration import held_out, limits_at, run, standardise
from analytics.channels import choose
from analytics.charts import make_vector_kind
from analytics.config import ChartConfig
from fieldlab.cli import main


@pytest.fixture
def recordings() -> Path:
    folder = os.environ.get("FIELDLAB_RECORDINGS", "")
    if not folder:
        pytest.skip("FIELDLAB_RECORDINGS is not set: no public recordings to replay")
    return Path(folder)


def alarms(file: Path, folder: Path, source: str, kind: str, baseline: int) -> list[bool]:
    config, out = folder / "replay.toml", folder / "out.csv"
    config.write_text(
        f'[[source]]\nkind = "replay"\nmachine = "plant"\n{source}\n[[chart]]\nkind = "{kind}"\nsignals = ["plant/*"]\n'
        f"baseline = {baseline}\nfalse_alarm_rate = 0.01\n"
    )
    assert main(["replay", str(file), str(config), "--out", str(out)]) == 0
    with out.open(newline="") as rows:
        return [row["alarm"] == "1" for row in csv.DictReader(rows)]


def by_library(x: NDArray[np.float64], kind: str, baseline: int) -> list[bool]:
    chart = make_vector_kind(ChartConfig(kind=kind, signals=("plant/*",)))
    kept = choose(x[:baseline], drop_drifting=kind != "cva").kept
    learned, new = x[:baseline, kept], x[baseline:, kept]
    mean, sigma = standardise(learned)
    found = run(chart, chart.fit((learned - mean) / sigma), (new - mean) / sigma)
    above = np.nan_to_num(found) > limits_at(held_out(chart, learned), 0.01)
    return [False] * baseline + [bool(row.any()) for row in above]


def test_skab(recordings: Path, tmp_path: Path) -> None:
    file = recordings / "skab" / "valve1" / "0.csv"
    with file.open(newline="") as rows:
        cells = list(csv.reader(rows, delimiter=";"))[1:]
    x = np.array([row[1:9] for row in cells], np.float64)
    said = alarms(file, tmp_path, 'time = "datetime"\ncolumns = ["A*", "C*", "P*", "T*", "V*"]', "mewma", 400)
    assert said == by_library(x, "mewma", 400)
    truth = np.array([row[9] == "1.0" for row in cells])[400:]
    judged = np.array(said[400:])
    assert judged[truth].mean() > judged[~truth].mean()


def test_tennessee_eastman(recordings: Path, tmp_path: Path) -> None:
    normal, faulty = np.loadtxt(recordings / "tep" / "d00.dat").T, np.loadtxt(recordings / "tep" / "d05_te.dat")
    x = np.vstack([normal, faulty])
    np.savetxt(tmp_path / "tep.csv", x, fmt="%.17g")
    said = alarms(tmp_path / "tep.csv", tmp_path, "", "cva", len(normal))
    assert said == by_library(x, "cva", len(normal))
    assert np.mean(said[500 + 160 :]) > 0.99
    assert np.mean(said[500:660]) < 0.05
