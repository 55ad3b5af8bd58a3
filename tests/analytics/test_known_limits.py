"""Limits from a file instead of a baseline: in force from the first value, with the same design."""

from typing import Any

import msgspec
import numpy as np
import pytest

from analytics.config import AnalyticsConfig, ChartConfig
from analytics.engine import Engine
from analytics.knownlimits import KnownLimits, of_toml
from analytics.limits import design_ewma
from fieldlab.model import BatchBuilder, ChartPoint, Control, Finding, Place, Record, RecordKind, SignalKey, SignalTable

PLACE = Place("a", "b", "c", "cnc")
SECOND = 10**9


def played(chart: ChartConfig, values: list[float]) -> list[Any]:
    """Rows of one chart over single readings."""
    signals = SignalTable()
    index = signals.index(SignalKey(PLACE, "d"))
    engine = Engine(signals)
    config = msgspec.to_builtins(AnalyticsConfig(charts=(chart,)))
    builder = BatchBuilder()
    for n, value in enumerate(values):
        builder.add(index, (n + 1) * SECOND, value)
    end = (len(values) + 10) * SECOND
    records = [
        Record(position=1, kind=RecordKind.CONTROL, time=0, rows=(Control(time=0, action="configure", detail=config),)),
        Record(position=2, kind=RecordKind.READINGS, time=end, batch=builder.build()),
        Record(position=3, kind=RecordKind.TICK, time=end),
    ]
    return list(engine.fold(records))


def test_known_limits_judge_the_first_value() -> None:
    known = (KnownLimits("cnc/d", 10.0, 0.5, 40),)
    chart = ChartConfig(kind="ewma", signals=("cnc/d",), per="reading", arl0=1000, limits_file="x", known=known)
    rng = np.random.default_rng(1)
    rows = played(chart, [*rng.normal(10, 0.5, 30).tolist(), *rng.normal(11.5, 0.5, 6).tolist()])
    points = [r for r in rows if isinstance(r, ChartPoint)]
    half = 0.5 * design_ewma(40, 0.2, 1000).width
    assert len(points) > 30
    assert all((p.lcl, p.ucl) == pytest.approx((10 - half, 10 + half)) and p.limits_version == 1 for p in points)
    found = [r for r in rows if isinstance(r, Finding) and r.state == "raised"]
    assert [f.rule for f in found] == ["ewma"]
    assert 31 * SECOND <= found[0].time <= 36 * SECOND


def test_a_signal_that_the_file_does_not_name_learns() -> None:
    known = (KnownLimits("cnc/e", 10.0, 0.5),)
    chart = ChartConfig(signals=("cnc/d",), per="reading", baseline=20, limits_file="x", known=known)
    points = [
        r for r in played(chart, np.random.default_rng(1).normal(10, 1, 30).tolist()) if isinstance(r, ChartPoint)
    ]
    assert [p.limits_version for p in points] == [0] * 20 + [1] * (len(points) - 20)
    assert len(points) > 25


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[limits]]\nsignal = "a/b"\ncenter = 1.0\nsigma = 0.0', "above 0"),
        ('[[limits]]\nsignal = "a/b"\ncenter = nan\nsigma = 1.0', "must be a number"),
        ('[[limits]]\nsignal = "a"\ncenter = 1.0\nsigma = 1.0', "machine/signal"),
        ('[[limits]]\nsignal = "a/b"\ncenter = 1.0\nsigma = 1.0\nn = 1', "at least 2"),
        ('[[limits]]\nsignal = "a/b"\ncenter = 1.0\nsigma = 1.0\nucl = 2.0', "ucl"),
        ('[[limits]]\nsignal = "a/b"\ncenter = 1.0\nsigma = 1.0\n' * 2, "twice"),
        ("\xff\xfe", "."),
        ("[limits", "."),
    ],
)
def test_what_is_wrong_with_a_file_is_said(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        of_toml(text.encode("latin-1"))
