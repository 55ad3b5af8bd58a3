"""Verdicts with a guard band: what is proven, and what is not, when the uncertainty of measurement is known."""

import numpy as np
import pytest

from analytics.guardband import FACTOR, Zone, guard_band, zone
from analytics.partbook import Fact, Life
from analytics.verdicts import Characteristic, against_limits, judge
from fieldlab.model import Place, SignalInfo, SignalKey, Verdict

PLACE = Place("drachten", "shavers", "3", "cmm")
SHAFT = SignalInfo(key=SignalKey(PLACE, "diameter"), unit="mm", lsl=24.97, usl=25.03, uncertainty=0.008)


def verdict(value: float, info: SignalInfo = SHAFT) -> str:
    """Of a part with one measured value."""
    return judge([Characteristic(info, True, 1, 0, {"value": value})], [], complete=True).verdict


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (25.0, "pass"), (25.0234, "pass"), (25.0235, "suspect"), (25.03, "suspect"), (25.0365, "suspect"),
        (25.0366, "fail"), (24.9766, "pass"), (24.97, "suspect"), (24.9635, "suspect"), (24.9634, "fail"),
    ],
)  # fmt: skip
def test_zones(value: float, expected: str) -> None:
    """The band is 1.645 / 2 times the expanded uncertainty, 0.00658 mm, on both sides of each limit."""
    assert verdict(value) == expected


def test_without_uncertainty_a_limit_is_a_limit() -> None:
    plain = SignalInfo(key=SHAFT.key, lsl=24.97, usl=25.03)
    assert [verdict(v, plain) for v in (25.03, 25.0300001, 24.97)] == ["pass", "fail", "pass"]


def test_words_name_limit_and_uncertainty() -> None:
    beyond, words = against_limits(SHAFT, "value", 24.968)
    assert beyond == 0.0
    assert words == (
        "value of diameter 24.968 mm is within the guard band of LSL 24.97 mm: nothing is proven at an uncertainty of "
        "0.008 mm"
    )


def test_a_part_at_the_limit_seldom_passes() -> None:
    """5 % at most of parts that are just out of specification are accepted, and of those just in, rejected."""
    rng = np.random.default_rng(1)
    cases: list[tuple[float, Zone]] = [(25.0300001, "inside"), (25.0299999, "outside")]
    for true, wrong in cases:
        found = [zone(true + e, 24.97, 25.03, 0.008) for e in rng.normal(0, 0.004, 4000)]
        assert found.count(wrong) / 4000 == pytest.approx(0.05, abs=0.012)
    assert guard_band(0.008) == pytest.approx(FACTOR * 0.004)


def fact(event: str, value: float | None = None, text: str = "") -> Fact:
    """Said at the measuring machine."""
    beyond, words = against_limits(SHAFT, "value", value) if value is not None else (-1.0, "")
    return Fact(
        time=1, place=PLACE.path, event=event, id="p1", signal="diameter", text=text, value=value,  # type: ignore[arg-type]  # a kind of event
        beyond=beyond, words=words,
    )  # fmt: skip


def test_a_late_measurement_within_the_band_proves_nothing_until_a_person_decides() -> None:
    life = Life(Verdict(time=0, place=PLACE, id="p1"), [], [], 0.0)
    life.take(fact("measure", 25.031))
    assert life.revise().verdict == "suspect"
    assert "guard band of USL" in life.revise().reasons[0]
    life.take(fact("release"))
    assert life.revise().verdict == "pass"
    life.take(fact("rework", text="ground"))
    life.take(fact("measure", 25.029))
    assert life.revise().verdict == "suspect"  # inside, but not surely: the rework is not proven
    life.take(fact("measure", 25.0))
    assert life.revise().verdict == "pass"
