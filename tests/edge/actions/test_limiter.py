"""A sliding window: never more than its count, whatever the clock does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.actions.limiter import MOST_A_MINUTE, Limit, Limiter

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "count", "seconds"), [("6/h", 6, 3600), ("1/10min", 1, 600), ("1/s", 1, 1), (" 600 / d ", 600, 86400)]
)
def test_what_is_understood(text: str, count: int, seconds: int) -> None:
    assert Limit.parse(text) == Limit(count, seconds * SECOND)


@given(st.text(alphabet="0123456789/ smhdin", max_size=12))
def test_whatever_is_parsed_is_bounded(text: str) -> None:
    try:
        limit = Limit.parse(text)
    except ValueError:
        return
    assert 0 < limit.count <= 600
    assert limit.window > 0
    assert limit.count * 60 * SECOND <= MOST_A_MINUTE * limit.window


@given(
    st.integers(1, 5),
    st.integers(5, 200),
    st.lists(st.integers(-50 * SECOND, 400 * SECOND), max_size=60),
    st.booleans(),
)
def test_no_window_holds_more(count: int, seconds: int, steps: list[int], again: bool) -> None:
    limit = Limit(count, seconds * SECOND)
    limiter = Limiter(limit)
    now, used = 1_763_900_000 * SECOND, []
    for step in steps:
        now += step
        if again:
            limiter = Limiter(limit, limiter.times)  # a restart forgets nothing
        if limiter.take(now):
            used.append(now)
    for at in used:
        assert sum(at - limit.window < t <= at for t in used) <= count


def test_room_comes_back() -> None:
    limiter = Limiter(Limit.parse("2/min"))
    assert [limiter.take(t * SECOND) for t in (0, 30, 59, 60, 61, 90)] == [True, True, False, True, False, True]


def test_a_long_window_allows_no_burst() -> None:
    limiter = Limiter(Limit.parse("600/h"))
    assert sum(limiter.take(i) for i in range(600)) == MOST_A_MINUTE


def test_a_clock_that_leaps_and_comes_back_gives_no_room() -> None:
    limiter = Limiter(Limit.parse("1/h"))
    hour = 3600 * SECOND
    assert [limiter.take(t) for t in (0, 5 * hour, SECOND, hour - 1)] == [True, True, False, False]
