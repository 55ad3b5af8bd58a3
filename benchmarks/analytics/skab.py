"""SKAB: each file's first 400 rows are the baseline, the rest is judged; confusion counts are pooled over all rows.

F1 = TP / (TP + (FN + FP) / 2), FAR = FP / (FP + TN), MAR = FN / (FN + TP), as the project's own leaderboard counts.
"""

import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.analytics.played import alarms

BASELINE = 400
CHARTS: dict[str, dict[str, Any]] = {
    "mewma": {"kind": "mewma"},
    "t2": {"kind": "t2"},
    "pca": {"kind": "pca"},
    "cva": {"kind": "cva"},
    "mewma, drifting channels kept": {"kind": "mewma", "drop_drifting": False},
}
PUBLISHED = {  # leaderboard of the project over all 34 files: F1, FAR %, MAR %
    "Conv-AE": [0.78, 13.55, 28.02],
    "MSET": [0.78, 39.73, 14.13],
    "T2+Q (PCA)": [0.76, 26.62, 24.92],
    "T2": [0.66, 19.21, 42.6],
}

Pairs = list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]


def scores(pairs: Pairs) -> dict[str, float]:
    """F1, FAR and MAR of (alarm, truth) pairs."""
    said, true = np.concatenate([s for s, _ in pairs]), np.concatenate([t for _, t in pairs])
    tp, fp = int(np.sum(said & true)), int(np.sum(said & ~true))
    fn, tn = int(np.sum(~said & true)), int(np.sum(~said & ~true))
    return {
        "F1": round(tp / (tp + (fn + fp) / 2), 4) if tp else 0.0,
        "FAR_percent": round(100 * fp / (fp + tn), 2),
        "MAR_percent": round(100 * fn / (fn + tp), 2),
    }


def truth(file: Path) -> NDArray[np.bool_]:
    """The label of each row."""
    with file.open(newline="") as rows:
        return np.array([float(row["anomaly"]) > 0 for row in csv.DictReader(rows, delimiter=";")])


def measure(data: Path) -> dict[str, Any]:
    """Every chart on every group that is there."""
    files = sorted(f for f in data.glob("*/*.csv") if f.parent.name != "anomaly-free")
    labels = {file: truth(file)[BASELINE:] for file in files}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, chart in CHARTS.items():
            pairs: Pairs = []
            for file in files:
                said = alarms(
                    file, Path(folder), time="datetime", columns=["A*", "C*", "P*", "T*", "V*"],
                    baseline=BASELINE, false_alarm_rate=0.01, **chart,
                )  # fmt: skip
                pairs.append((said[BASELINE:], labels[file]))
            found[name] = scores(pairs)
    always: Pairs = [(np.ones(len(t), bool), t) for t in labels.values()]
    periodic: Pairs = [(np.arange(len(t)) % 30 == 0, t) for t in labels.values()]
    return {
        "files": len(files),
        "groups": sorted({f.parent.name for f in files}),
        "rows_judged": int(sum(len(t) for t in labels.values())),
        "ours": found,
        "trivial": {"always alarm": scores(always), "every 30th row": scores(periodic)},
        "published, all 34 files": PUBLISHED,
    }
