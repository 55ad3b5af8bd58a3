"""The contract of every multivariate kind, through the engine: add a kind to `CHARTS` and it is held to it."""

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from analytics.config import VECTOR_KINDS, AnalyticsConfig, ChartConfig
from analytics.engine import Engine
from analytics.seen import Seen
from fieldlab.model import Batch, ChartPoint, Control, Finding, Place, Record, RecordKind, SignalKey, SignalTable

SECOND = 1_000_000_000
PLANT = Place("site", "area", "line", "plant")
NAMES = ("flow", "level", "speed", "heat")
BASELINE = 200
CHARTS = {
    "t2": ChartConfig(kind="t2", signals=("plant/*",)),
    "mewma": ChartConfig(kind="mewma", signals=("plant/*",)),
    "mewma, long memory": ChartConfig(kind="mewma", signals=("plant/*",), lambda_=0.05),
    "pca": ChartConfig(kind="pca", signals=("plant/*",)),
    "cva": ChartConfig(kind="cva", signals=("plant/*",)),
    "cva, one lag": ChartConfig(kind="cva", signals=("plant/*",), lags=1),
}
Rows = NDArray[np.float64]


@pytest.fixture(params=list(CHARTS))
def chart(request: pytest.FixtureRequest) -> ChartConfig:
    return prepared(CHARTS[request.param])


def prepared(chart: ChartConfig, **more: Any) -> ChartConfig:
    given = {"name": "all", "per": "reading", "baseline": BASELINE, "false_alarm_rate": 0.005} | more
    return msgspec.structs.replace(chart, **given)


def values(length: int = 300, seed: int = 5, shift: float = 0.0) -> Rows:
    """Four channels that move together; from row 250 on `level` leaves the others by `shift`."""
    noise = np.random.default_rng(seed).normal(size=(length, 5))
    x = noise[:, :1] + 0.5 * noise[:, 1:]
    x[250:, 1] += shift
    return np.asarray(x)


class Plant:
    """An engine with one multivariate chart, fed with rows."""

    def __init__(self, chart: ChartConfig, names: tuple[str, ...] = NAMES) -> None:
        self.table = SignalTable()
        for name in names:
            self.table.index(SignalKey(PLANT, name))
        self.seen: list[Seen] = []
        self.engine = Engine(self.table, self.seen.append)
        self.config = AnalyticsConfig(charts=(chart,), lateness=0.0)
        detail = msgspec.to_builtins(self.config)
        control = Control(time=0, action="configure", detail=detail)
        self.engine.fold([Record(0, RecordKind.CONTROL, 0, rows=(control,))])

    def feed(self, x: Rows, start: int = 0) -> list[Any]:
        row, column = np.nonzero(~np.isnan(x))
        batch = Batch.of(column.astype(np.uint32), (row + start) * SECOND, x[row, column])
        return self.engine.fold([Record(0, RecordKind.READINGS, 0, batch=batch)])

    def finish(self, at: int) -> list[Any]:
        """One more reading releases the last vector."""
        return self.engine.fold([Record(0, RecordKind.READINGS, 0, batch=Batch.of([0], [at * SECOND], [0.0]))])

    def column(self, name: str) -> NDArray[Any]:
        return np.concatenate([getattr(s, name) for s in self.seen])

    def note(self) -> str:
        limits = self.engine.limits()[0][2]
        assert limits is not None
        return limits.note


def of(rows: list[Any], kind: type) -> list[Any]:
    return [row for row in rows if isinstance(row, kind)]


def test_every_kind_is_here() -> None:
    assert {c.kind for c in CHARTS.values()} == set(VECTOR_KINDS)


def test_together_or_row_by_row(chart: ChartConfig) -> None:
    x = values(shift=4.0)
    whole, alone = Plant(chart), Plant(chart)
    rows = whole.feed(x)
    one_by_one = [row for i in range(len(x)) for row in alone.feed(x[i : i + 1], i)]
    assert msgspec.json.encode(rows) == msgspec.json.encode(one_by_one)
    assert len(of(rows, ChartPoint)) > 90
    assert whole.column("statistic").tobytes() == alone.column("statistic").tobytes()


@pytest.mark.parametrize("cut", [90, 230])
def test_saved_and_resumed_bit_for_bit(chart: ChartConfig, cut: int) -> None:
    x = values(shift=4.0)
    whole, first = Plant(chart), Plant(chart)
    rows = whole.feed(x)
    before = first.feed(x[:cut])
    second = Plant(chart)
    second.engine.restore(first.engine.snapshot())
    assert msgspec.json.encode(before + second.feed(x[cut:], cut)) == msgspec.json.encode(rows)
    assert second.engine.snapshot() == whole.engine.snapshot()


def test_a_channel_that_leaves_the_others_is_found_and_named(chart: ChartConfig) -> None:
    plant = Plant(chart)
    rows = [*plant.feed(values(shift=4.0)), *plant.finish(300)]
    found = [f for f in of(rows, Finding) if f.time >= 250 * SECOND]
    assert found
    assert (found[0].signal, found[0].severity, found[0].limits_version) == ("_all", "alarm", 1)
    assert found[0].statistic > found[0].limit > 0
    assert "most from level" in found[0].detail
    assert {p.signal for p in of(rows, ChartPoint)} == {"_all"}
    assert all(p.ucl is not None for p in of(rows, ChartPoint))


@pytest.mark.parametrize(("scale", "offset"), [(1e-6, 0.0), (1000.0, -5e4), (1.0, 1e5)])
def test_scale_and_shift_change_nothing(chart: ChartConfig, scale: float, offset: float) -> None:
    plain, moved = Plant(chart), Plant(chart)
    plain.feed(values(shift=3.0))
    moved.feed(values(shift=3.0) * scale + offset)
    assert moved.column("statistic") == pytest.approx(plain.column("statistic"), rel=1e-5, nan_ok=True)


def test_the_order_of_channels_changes_nothing(chart: ChartConfig) -> None:
    plain, turned = Plant(chart), Plant(chart, NAMES[::-1])
    plain.feed(values(shift=3.0))
    turned.feed(values(shift=3.0)[:, ::-1].copy())
    assert turned.column("statistic") == pytest.approx(plain.column("statistic"), rel=1e-7, nan_ok=True)


def test_missing_values(chart: ChartConfig) -> None:
    """One of four channels: judged with what the others let expect. Three of four: passed over."""
    x = values()
    x[220, 2] = np.nan
    x[230, 1:] = np.nan
    plant = Plant(chart)
    plant.feed(x)
    judged = plant.column("last")[np.isfinite(plant.column("ucl"))]
    assert 220 * SECOND in judged
    assert 230 * SECOND not in judged
    at = np.flatnonzero(plant.column("last") == 220 * SECOND)[0]
    assert plant.column("violation")[at] == 0


def test_gaps_in_the_baseline(chart: ChartConfig) -> None:
    x = values()
    x[np.random.default_rng(3).random(x.shape) < 0.03] = np.nan
    plant = Plant(chart)
    plant.feed(x)
    assert "of 4 signals" in plant.note()


def test_constant_and_drifting_channels_are_left_out_and_told(chart: ChartConfig) -> None:
    x = np.column_stack([values(), np.ones(300), np.linspace(0, 9, 300)])
    names = (*NAMES, "stuck", "warming")
    plant = Plant(msgspec.structs.replace(chart, drop_drifting=True), names)
    plant.feed(x)
    assert "stuck left out: it does not vary" in plant.note()
    assert "warming left out: it drifts: 99 %" in plant.note()
    kept = Plant(msgspec.structs.replace(chart, drop_drifting=False, on_unstable="warn"), names)
    kept.feed(x)
    assert "warming left out" not in kept.note()


def test_channels_that_repeat_each_other(chart: ChartConfig) -> None:
    x = values(shift=4.0)
    plant = Plant(chart, (*NAMES, "again"))
    rows = plant.feed(np.column_stack([x, x[:, 0]]))
    assert [f for f in of(rows, Finding) if f.time >= 250 * SECOND]


def test_a_step_in_the_baseline_is_refused_with_its_figure(chart: ChartConfig) -> None:
    x = values()
    x[100:120] += 25.0
    chart = msgspec.structs.replace(chart, drop_drifting=False)
    plant = Plant(chart)
    (refusal,) = [f for f in of(plant.feed(x), Finding) if f.rule == "baseline"]
    assert "part 6 of the baseline is unlike the rest" in refusal.detail
    assert refusal.statistic > 1
    assert plant.engine.limits()[0][2] is None
    warned = Plant(msgspec.structs.replace(chart, on_unstable="warn"))
    warned.feed(x)
    assert "frozen although part 6" in warned.note()


def test_where_every_channel_drifts_none_is_left_out() -> None:
    x = values() + np.linspace(0, 20, 300)[:, None]
    plant = Plant(prepared(CHARTS["t2"]))
    refused = [f for f in of(plant.feed(x), Finding) if f.rule == "baseline"]
    assert refused
    warned = Plant(prepared(CHARTS["t2"], on_unstable="warn"))
    warned.feed(x)
    assert "of 4 signals" in warned.note()
    assert "frozen although" in warned.note()


def test_too_short_a_baseline_is_refused() -> None:
    names = tuple(f"s{i}" for i in range(12))
    plant = Plant(prepared(CHARTS["t2"], baseline=20), names)
    rows = plant.feed(np.random.default_rng(1).normal(size=(25, 12)))
    (refusal,) = of(rows, Finding)
    assert "too few for" in refusal.detail


def test_windows_make_vectors_too(chart: ChartConfig) -> None:
    plant = Plant(msgspec.structs.replace(chart, per="2s", baseline=100))
    plant.feed(values(500))
    assert "learned from 100 vectors" in plant.note()
    known = np.isfinite(plant.column("ucl"))
    assert set((plant.column("last") - plant.column("first"))[known].tolist()) == {2 * SECOND - 1}


@pytest.mark.parametrize("phi", [0.0, 0.7])
@pytest.mark.parametrize("kind", ["t2", "mewma", "pca", "cva"])
def test_designed_rate_of_false_alarms(kind: str, phi: float) -> None:
    """On new data like the baseline's, also where neighbours resemble each other: theory's limits would not do."""
    rate, judged, alarms = 0.02, 0, 0
    for seed in range(6):
        x = np.random.default_rng(100 + seed).normal(size=(1200, 4))
        for i in range(1, len(x)):
            x[i] += phi * x[i - 1]
        plant = Plant(prepared(CHARTS[kind], baseline=400, false_alarm_rate=rate, on_unstable="warn"))
        plant.feed(x)
        judged += int(np.isfinite(plant.column("ucl")).sum())
        alarms += int(np.count_nonzero(plant.column("violation")))
    assert 0.4 * rate < alarms / judged < 2.0 * rate
