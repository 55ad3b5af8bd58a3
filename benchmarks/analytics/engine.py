"""What a value costs in the engine: 1,000 signals at 10 Hz through ordering, checks of sensors, charts and trends.

The same readings five times: ordering alone, with the checks, with charts, with trends on windows, and with all. CPU ns
a value, behind what is learned; `core_percent` is that at 10,000 values a second.
"""

import time
from typing import Any

import msgspec
import numpy as np

from analytics.config import AnalyticsConfig, ChartConfig
from analytics.engine import Engine
from analytics.health.config import HealthConfig
from analytics.trend_config import TrendConfig
from fieldlab.model import Batch, Control, Place, Record, RecordKind, SignalKey, SignalTable

SIGNALS, HERTZ, MACHINES = 1_000, 10, 20
LEARNING, SECONDS = 70, 90
START = 1_700_000_000 * 10**9
CHART = ChartConfig(kind="ewma", signals=("m*/x*",), per="1s", baseline=60, on_unstable="warn")
READING = ChartConfig(kind="individuals", signals=("m*/x*",), per="reading", baseline=300, on_unstable="warn")
OFF, ON = HealthConfig(on=False), HealthConfig(signals=("m*/x*",))
NO_TREND = (TrendConfig(signals=("*/*",), on=False),)
TREND = (TrendConfig(signals=("m*/x*",), per="1s", lower=0.0, upper=40.0),)
CASES = {
    "ordering": AnalyticsConfig(charts=(msgspec.structs.replace(CHART, per="1h"),), health=OFF, trends=NO_TREND),
    "ordering, health": AnalyticsConfig(health=ON, trends=NO_TREND),
    "ordering, trend on 1 s windows": AnalyticsConfig(health=OFF, trends=TREND),
    "ordering, a chart a reading": AnalyticsConfig(charts=(READING,), health=OFF, trends=NO_TREND),
    "all": AnalyticsConfig(charts=(READING, CHART), health=ON, trends=TREND),
}


def measure() -> dict[str, Any]:
    """CPU of each case."""
    found = {name: _run(config) for name, config in CASES.items()}
    return {
        "unit": "CPU ns a value",
        "signals": SIGNALS,
        "cases": {name: round(ns) for name, ns in found.items()},
        "health": round(found["ordering, health"] - found["ordering"]),
        "trend": round(found["ordering, trend on 1 s windows"] - found["ordering"]),
        "core_percent": {name: round(ns * 1e-9 * SIGNALS * HERTZ * 100, 2) for name, ns in found.items()},
    }


def _run(config: AnalyticsConfig) -> float:
    random, table = np.random.default_rng(1), SignalTable()
    ids = [table.index(SignalKey(Place("s", "a", "l", f"m{k % MACHINES}"), f"x{k}")) for k in range(SIGNALS)]
    engine = Engine(table)
    control = Control(time=0, action="configure", detail=msgspec.to_builtins(config))
    engine.fold([Record(0, RecordKind.CONTROL, 0, rows=(control,))])
    spent, now = 0.0, random.normal(size=SIGNALS)
    for second in range(SECONDS):
        x = np.empty((HERTZ, SIGNALS))
        for i in range(HERTZ):
            now = x[i] = 0.9 * now + random.normal(size=SIGNALS) * 0.436
        at = np.repeat(START + (second * HERTZ + np.arange(HERTZ)) * 10**9 // HERTZ, SIGNALS)
        record = Record(0, RecordKind.READINGS, 0, batch=Batch.of(np.tile(ids, HERTZ), at, 20 + x.ravel()))
        began = time.process_time()
        engine.fold([record])
        spent += (time.process_time() - began) * (second >= LEARNING)
    return spent / (SIGNALS * HERTZ * (SECONDS - LEARNING)) * 1e9
