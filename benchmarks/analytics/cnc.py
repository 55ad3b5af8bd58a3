"""CNC mill (18 wax parts): a verdict for each part from the other good ones, as counts, beside what the feed rate says.

Every part at 3 mm/s passed and none of the bad ones ran at it, so "suspect whatever ran faster" finds them all by
reading the setting and not the part: that reference stands beside. Features are the logarithms of the spindle's and
axes' mean power and current while a layer is cut. What the feed rate explains is taken off (a straight line in its
logarithm, over the other good parts), and what is left is held against its spread there: more than `LIMIT` of it, in
mean square over the features, is suspect. A part without all its layers is incomplete. `LIMIT` and features were set
before any result was seen. This is plain numpy, not the agent's charts: ten good parts at five feed rates are too few
to freeze limits on.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FEATURES = (
    "X1_CurrentFeedback",
    "Y1_CurrentFeedback",
    "S1_CurrentFeedback",
    "X1_OutputPower",
    "Y1_OutputPower",
    "S1_OutputPower",
)
LAYERS = tuple(f"Layer {n} {way}" for n in (1, 2, 3) for way in ("Up", "Down"))
LIMIT = 4.0


def measure(data: Path) -> dict[str, Any]:
    """Counts of the verdicts, leaving one part out."""
    with (data / "train.csv").open(newline="") as rows:
        parts = list(csv.DictReader(rows))
    found = [_features(data / f"experiment_{int(p['No']):02d}.csv") for p in parts]
    x, complete = np.array([f for f, _ in found]), np.array([whole for _, whole in found])
    feed = np.log([float(p["feedrate"]) for p in parts])
    finished = np.array([p["machining_finalized"] == "yes" for p in parts])
    good = np.array([p["passed_visual_inspection"] == "yes" for p in parts])
    score = np.array([_score(x, feed, good & (np.arange(len(parts)) != i), i) for i in range(len(parts))])
    plain = np.array([_score(x, 0 * feed, good & (np.arange(len(parts)) != i), i) for i in range(len(parts))])
    return {
        "parts": len(parts),
        "ours, feed rate taken off": _counts((score > LIMIT) | ~complete, good, finished),
        "the same without": _counts((plain > LIMIT) | ~complete, good, finished),
        "incomplete alone": _counts(~complete, good, finished),
        "trivial: faster than 3 mm/s": _counts(feed > np.log(3.5), good, finished),
        "scores": {p["No"]: round(float(s), 1) for p, s in zip(parts, score, strict=True)},
    }  # fmt: skip


def _features(file: Path) -> tuple[list[float], bool]:
    with file.open(newline="") as rows:
        lines = list(csv.DictReader(rows))
    cut = [line for line in lines if line["Machining_Process"] in LAYERS]
    there = {line["Machining_Process"] for line in cut}
    means = [float(np.mean([abs(float(line[name])) for line in cut])) for name in FEATURES]
    return np.log(np.maximum(means, 1e-12)).tolist(), set(LAYERS) <= there


def _score(x: Floats, feed: Floats, others: NDArray[np.bool_], i: int) -> float:
    """Mean square of a part's deviations from the line of the other good ones, in their spreads."""
    design = np.column_stack([np.ones(len(feed)), feed])
    line, *_ = np.linalg.lstsq(design[others], x[others], rcond=None)
    left = x - design @ line
    spread = np.sqrt(np.sum(left[others] ** 2, axis=0) / max(int(others.sum()) - 2, 1))
    return float(np.mean((left[i] / spread) ** 2))


def _counts(suspect: NDArray[np.bool_], good: NDArray[np.bool_], finished: NDArray[np.bool_]) -> dict[str, str]:
    bad, not_done = finished & ~good, ~finished
    return {
        "bad parts found": f"{int((suspect & bad).sum())} of {int(bad.sum())}",
        "unfinished found": f"{int((suspect & not_done).sum())} of {int(not_done.sum())}",
        "good called suspect": f"{int((suspect & good).sum())} of {int(good.sum())}",
    }
