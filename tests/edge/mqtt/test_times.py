"""Times of payloads: every usual form, and nothing but the declared error."""

from datetime import UTC, datetime, timedelta, timezone
from operator import floordiv, truediv
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sources.mqtt.times import EARLIEST, TimeError, all_to_ns, to_ns

steady = settings(deadline=None)  # a slow machine is no fault
NOW = 1_795_500_000_000_000_000
DAY = 86_400_000_000_000
times = st.integers(EARLIEST, NOW + DAY)
KINDS = [  # of which there may be many in a row
    times,
    *(st.builds(floordiv, times, st.just(unit)) for unit in (10**3, 10**6, 10**9)),
    *(st.builds(truediv, times, st.just(unit)) for unit in (1, 10**3, 10**6, 10**9)),
]


@pytest.mark.parametrize(
    ("raw", "ns"),
    [
        (1763900000, 1763900000_000_000_000),
        (1763900000123, 1763900000_123_000_000),
        (1763900000123456, 1763900000_123_456_000),
        (1763900000123456789, 1763900000_123_456_789),
        (1763900000.123, 1763900000_123_000_000),
        (1763900000123.25, 1763900000_123_250_000),
        ("2026-11-23T20:00:00Z", 1795464000_000_000_000),
        ("2026-11-23t20:00:00.123456789z", 1795464000_123_456_789),
        ("2026-11-23 21:00:00,5+01:00", 1795464000_500_000_000),
        ("2026-11-23T15:30:00-0430", 1795464000_000_000_000),
        ("2026-11-23T20:00:00.1234567899999Z", 1795464000_123_456_789),
        ("2016-12-31T23:59:60Z", 1483228800_000_000_000),
    ],
)
def test_usual_forms(raw: Any, ns: Any) -> None:
    assert to_ns(raw, NOW + DAY) == ns


@pytest.mark.parametrize(
    "raw",
    [
        *(
            0,
            -1,
            5,
            946684799,
            NOW + DAY + 1,
            10**30,
            float("nan"),
            float("inf"),
            -float("inf"),
            True,
            None,
            [],
            {},
            "",
        ),
        *(
            "2026-11-23T20:00:00",
            "2026-02-30T20:00:00Z",
            "0001-01-01T00:00:00Z",
            "yesterday",
            "2026-11-23",
            "٢026-11-23T20:00:00Z",
        ),
    ],
)
def test_what_is_no_time_or_cannot_be_true(raw: Any) -> None:
    with pytest.raises(TimeError, match="time"):
        to_ns(raw, NOW)


@steady
@given(times)
def test_whole_numbers_round_trip_in_every_unit(ns: Any) -> None:
    assert to_ns(ns // 10**9, NOW) == ns // 10**9 * 10**9
    assert to_ns(ns // 10**6, NOW) == ns // 10**6 * 10**6
    assert to_ns(ns // 10**3, NOW) == ns // 10**3 * 10**3
    assert to_ns(ns, NOW) == ns


@steady
@given(
    st.one_of(
        st.lists(
            st.one_of(times, times.map(lambda ns: ns // 10**6), st.integers(), st.floats(), st.none()), max_size=5
        ),
        *(st.lists(kind, min_size=10, max_size=30) for kind in KINDS),
        st.lists(st.one_of(*KINDS), min_size=10, max_size=30),
    )
)
def test_many_at_once_equal_one_by_one(raw: Any) -> None:
    try:
        singly = [NOW + i if each is None else to_ns(each, NOW) for i, each in enumerate(raw)]
    except TimeError:
        with pytest.raises(TimeError):
            all_to_ns(raw, NOW)
    else:
        assert all_to_ns(raw, NOW).tolist() == singly


@steady
@given(times)
def test_floats_round_trip_to_the_microsecond(ns: Any) -> None:
    us = ns // 1000 * 1000
    for unit in (10**9, 10**6, 10**3):
        assert to_ns(us / unit, NOW) == us


@steady
@given(times, st.integers(-14 * 60, 14 * 60))
def test_rfc_3339_round_trips_in_every_zone(ns: Any, minutes: Any) -> None:
    us = ns // 1000
    zone = timezone(timedelta(minutes=minutes))
    stamp = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).astimezone(zone)
    assert to_ns(stamp.isoformat(), NOW) == us * 1000


@steady
@given(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.lists(st.integers()),
        st.dictionaries(st.text(), st.text()),
        st.from_regex(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"),
    )
)
def test_anything_gives_a_time_or_the_declared_error(raw: Any) -> None:
    try:
        ns = to_ns(raw, NOW)
    except TimeError:
        return
    assert EARLIEST <= ns <= NOW + DAY
