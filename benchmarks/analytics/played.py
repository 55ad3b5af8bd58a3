"""Plays a file through `fieldlab replay`'s own code and reads the rows back."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from edge.config import load
from edge.replay import replay


def alarms(file: Path, folder: Path, *, time: str = "", columns: Sequence[str] = (), **chart: Any) -> NDArray[np.bool_]:
    """The alarm of each row of `file`, judged by one chart over all its signals."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    lines = ["[[source]]", 'kind = "replay"', 'machine = "plant"']
    lines += [f"time = {_toml(time)}"] if time else []
    lines += [f"columns = {_toml(list(columns))}"] if columns else []
    lines += ["[[chart]]", 'signals = ["plant/*"]', *(f"{key} = {_toml(value)}" for key, value in chart.items())]
    config, out = folder / "replay.toml", folder / "out.csv"
    config.write_text("\n".join(lines))
    replay(load(config, agent="bench"), file, out=out)
    with out.open(newline="") as rows:
        return np.array([row["alarm"] == "1" for row in csv.DictReader(rows)])


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)
