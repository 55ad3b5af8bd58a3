"""The window of chart points, and where a finding is marked."""

from typing import Any

import pytest

from board import series
from board.latest import LatestReadings
from board.series import Charts, chart_id, raised_at
from fieldlab.model import BatchBuilder, ChartPoint, Finding, Place, SignalKey

T0 = 1_763_900_000_000_000_000
SECOND = 10**9
HERE = Place("s", "a", "l", "m")


def point(n: int, chart: str = "c", statistic: float | None = None) -> ChartPoint:
    return ChartPoint(
        time=T0 + n * SECOND,
        place=HERE,
        signal="x",
        chart=chart,
        statistic=float(n) if statistic is None else statistic,
    )


def found(n: float, statistic: float, state: Any = "raised") -> Finding:
    at = T0 + int(n * SECOND)
    return Finding(time=at, place=HERE, signal="x", chart="c", rule="1", id="i", statistic=statistic, state=state)


def held(charts: Charts, chart: str) -> list[float]:
    data: list[float] = charts.data([])[chart_id((HERE, "x", chart))]["statistic"]
    return data


def test_a_finding_is_marked_on_the_point_that_raised_it() -> None:
    points = [point(n, statistic=float(n % 5)) for n in range(20)]
    assert raised_at(points, found(7, 2.0)) == 7
    assert raised_at(points, found(9, 2.0, "cleared")) == 7
    assert raised_at(points, found(7, 99.0)) == 7  # another statistic at the same time: the time decides
    assert raised_at(points, found(7.5, 99.0)) is None
    assert raised_at(points, found(-1, 0.0)) is None
    assert raised_at([], found(0, 0.0)) is None


def test_a_busy_chart_does_not_crowd_out_a_quiet_one(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "_READ", 50)
    monkeypatch.setattr(series, "MAX_POINTS", 40)
    charts = Charts()
    shop.write(*(point(n, "quiet") for n in range(0, 30, 3)), *(point(n, "busy") for n in range(30)))
    charts.read_all(shop.reader)
    shop.write(*(point(n, "busy") for n in range(30, 200)))
    charts.read_all(shop.reader)
    assert held(charts, "quiet") == [float(n) for n in range(0, 30, 3)]
    assert held(charts, "busy") == [float(n) for n in range(160, 200)]


def test_reading_what_is_new_equals_reading_everything(shop: Any) -> None:
    new, whole = Charts(), Charts()
    for start in range(0, 1000, 90):
        shop.write(
            *(point(n) for n in range(start, start + 90)), *(point(n, "slow") for n in range(start, start + 90, 30))
        )
        new.read_new(shop.reader)
        whole.read_all(shop.reader)
        assert new.data([]) == whole.data([])
    assert len(held(new, "c")) == series.MAX_POINTS


def test_news_is_read_at_once_and_quiet_signals_in_turn(shop: Any) -> None:
    keys = [SignalKey(HERE, f"s{n}") for n in range(10)]
    latest = LatestReadings(budget=0)  # one quiet signal a refresh

    def write(key: SignalKey, time: int, value: float) -> None:
        batch = BatchBuilder()
        batch.add(shop.signals.index(key), time, value)
        shop.write_batch(batch.build())

    for key in keys:
        write(key, T0, 1.0)
    for done in range(1, 11):
        latest.refresh(shop.reader, keys, T0 + 60 * SECOND)
        assert len(latest.known) == done
    for key in keys[5:]:
        write(key, T0 + 60 * SECOND, 2.0)
    write(keys[0], T0 + 1, 3.0)  # of a machine whose clock is far behind: found when its turn comes
    latest.refresh(shop.reader, keys, T0 + 61 * SECOND)
    assert [latest.known[key].value for key in keys[5:]] == [2.0] * 5
    for _ in range(5):
        latest.refresh(shop.reader, keys, T0 + 61 * SECOND)
    assert latest.known[keys[0]].value == 3.0
