"""ns a value: our banks over many channels, the same one value at a time in Python, and river's equivalents."""

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics.charts import make_bank, make_vector_kind
from analytics.charts.short_run import recipe_code
from analytics.config import COUNT_KINDS, XBAR_KINDS, ChartConfig

Floats = NDArray[np.float64]

ROUNDS = 5
LAMBDA = 0.2
M = ("m/*",)
CHARTS = {
    "individuals": ChartConfig(signals=M),
    "ewma": ChartConfig(kind="ewma", signals=M, lambda_=LAMBDA),
    "cusum": ChartConfig(kind="cusum", signals=M),
    "residual": ChartConfig(kind="residual", signals=M),
    "western-electric": ChartConfig(signals=M, rules="western-electric"),
    "nelson": ChartConfig(signals=M, rules="nelson"),
    "xbar-s, a subgroup": ChartConfig(kind="xbar-s", signals=M, subgroup=5),
    "short-run": ChartConfig(kind="short-run", signals=M, recipe="m/r", nominals={"A": 0.0}),
    "p, a sample": ChartConfig(kind="p", signals=M, n=50),
    "laney-p, a sample": ChartConfig(kind="laney-p", signals=M, n=50),
}


def measure() -> dict[str, Any]:
    """Best of several rounds."""
    found: dict[str, Any] = {"unit": "ns a value", "bank": {}, "python": {}, "river": {}}
    for kind in ("individuals", "ewma"):
        for channels in (1, 100, 1_000, 10_000):
            found["bank"][f"{kind}, {channels} channels"] = _bank(CHARTS[kind], channels)
    for name, chart in CHARTS.items():
        found["bank"].setdefault(f"{name}, 1000 channels", _bank(chart, 1_000))
    x = np.random.default_rng(1).normal(size=20_000).tolist()
    found["python"]["individuals"] = _each(_python_individuals, x)
    found["python"]["ewma"] = _each(_python_ewma, x)
    found["python"]["cusum"] = _each(_python_cusum, x)
    found["river"] = _river(x)
    found["vector"] = {f"{kind}, 52 channels, ns a vector": _vector(kind) for kind in ("t2", "mewma", "pca", "cva")}
    for kind in ("individuals", "ewma", "cusum"):
        found[f"python / bank of 1,000, {kind}"] = round(
            found["python"][kind] / found["bank"][f"{kind}, 1000 channels"], 1
        )
    return found


def _best(work: Callable[[], None], values: int) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return round(min(times) * 1e9 / values, 1)


def _bank(chart: ChartConfig, channels: int) -> float:
    bank = make_bank(chart)
    bank.grow(channels)
    random = np.random.default_rng(1)
    learned = bank.estimate(_items(chart, random, (100,)))
    design = bank.design(learned)
    for channel in range(channels):
        bank.freeze(channel, learned, design)
    steps = max(20, 200_000 // channels) if channels > 1 else 5_000
    x, all_channels = _items(chart, random, (steps, channels)), np.arange(channels)

    def work() -> None:
        for row in x:
            bank.update(all_channels, row)

    return _best(work, steps * channels)


def _items(chart: ChartConfig, random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Items in control: subgroups of 5, counts of 50, a recipe, or values."""
    x = random.normal(size=(*shape, 5))
    if chart.kind in XBAR_KINDS:
        return np.stack([x.mean(axis=-1), x.std(axis=-1, ddof=1), np.full(shape, 5.0)], axis=-1)
    if chart.kind in COUNT_KINDS:
        return np.stack([random.poisson(8.0, shape), np.full(shape, 50)], axis=-1).astype(float)
    if chart.kind == "short-run":
        return np.stack([x[..., 0], np.full(shape, recipe_code("A"))], axis=-1)
    return np.asarray(x[..., 0])


def _vector(kind: str) -> float:
    chart = make_vector_kind(ChartConfig(kind=kind, signals=("m/*",)))
    x = np.random.default_rng(1).normal(size=(1_000, 52))
    model = chart.fit(x)

    def work() -> None:
        memory = chart.memory(52)
        for row in x:
            _, memory = chart.step(model, memory, row)

    return _best(work, len(x))


def _each(judge: Callable[[list[float]], int], x: list[float]) -> float:
    def work() -> None:
        judge(x)

    return _best(work, len(x))


class _Individuals:
    """One channel, one value at a time: what a plain class does."""

    def __init__(self, center: float, half: float) -> None:
        self.lcl, self.ucl = center - half, center + half

    def update(self, x: float) -> bool:
        return x > self.ucl or x < self.lcl


class _Ewma(_Individuals):
    z = 0.0

    def update(self, x: float) -> bool:
        self.z = LAMBDA * x + (1 - LAMBDA) * self.z
        return self.z > self.ucl or self.z < self.lcl


def _python_individuals(x: list[float]) -> int:
    chart = _Individuals(0.0, 3.0)
    return sum(chart.update(value) for value in x)


def _python_ewma(x: list[float]) -> int:
    chart = _Ewma(0.0, 1.0)
    return sum(chart.update(value) for value in x)


class _Cusum(_Individuals):
    up = down = 0.0

    def update(self, x: float) -> bool:
        self.up = max(0.0, self.up + x - 0.5)
        self.down = max(0.0, self.down - x - 0.5)
        return self.up > self.ucl or self.down > self.ucl


def _python_cusum(x: list[float]) -> int:
    chart = _Cusum(0.0, 5.0)
    return sum(chart.update(value) for value in x)


def _river(x: list[float]) -> dict[str, float] | str:
    try:
        stats, drift, anomaly = (import_module(f"river.{name}") for name in ("stats", "drift", "anomaly"))
    except ModuleNotFoundError:
        return "skipped: install the package river"

    def ewma(values: list[float]) -> int:
        mean, alarms = stats.EWMean(LAMBDA), 0
        for value in values:
            mean.update(value)
            alarms += abs(mean.get()) > 1.0
        return alarms

    def page_hinkley(values: list[float]) -> int:
        detector, alarms = drift.PageHinkley(), 0
        for value in values:
            detector.update(value)
            alarms += detector.drift_detected
        return alarms

    def gaussian(values: list[float]) -> int:
        scorer, alarms = anomaly.GaussianScorer(), 0
        for value in values:
            alarms += scorer.score_one(None, value) > 0.9973
            scorer.learn_one(None, value)
        return alarms

    few = x[:5_000]
    return {
        "EWMean against limits (ewma)": _each(ewma, x),
        "PageHinkley (cusum)": _each(page_hinkley, few),
        "GaussianScorer (individuals)": _each(gaussian, few),
    }
