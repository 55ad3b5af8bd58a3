"""Source times that cannot be are kept aside with a reason, and can be kept with the server's time after all."""

import datetime as dt
import time
from typing import Any

import msgspec
import pytest

EPOCH_TICKS = 116_444_736_000_000_000
GOOD = 0
DAY = 24 * 3600


def ticks(seconds_from_now: float) -> str:
    return str(int((time.time() + seconds_from_now) * 1e7) + EPOCH_TICKS)


IMPOSSIBLE = {
    "the year 1601": ("50000000", "1601-01-01T00:00:05+00:00 is before 1970"),
    "before 1970": (str(EPOCH_TICKS - 1), "1969-12-31T23:59:59+00:00 is before 1970"),
    "two days ahead": (ticks(2 * DAY), "is more than a day ahead"),
    "the year 2999": (str(EPOCH_TICKS + 324_721_440_000_000_000), "2999-01-01T00:00:00+00:00 is more than a day ahead"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_they_are_kept_aside_with_the_reason(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, name: str
) -> None:
    tick, reason = IMPOSSIBLE[name]
    server = shared({"a": {"type": "Double", "value": 1}, "b": {"type": "String", "value": "x"}})
    source = run_source(table(server, ["a", "b"]), sink)
    wait_until(lambda: len(sink.readings()) == 2)
    asked = time.time_ns()
    server.ask("set", name="a", type="Double", value=2.5, tick=tick)
    server.ask("set", name="b", type="String", value="y", tick=tick)
    server.ask("set", name="a", type="Double", value=3.5)
    wait_until(lambda: sink.readings("a")[-1].value == 3.5 and len(sink.letters) == 2)
    assert [r.value for r in sink.readings("a")] == [1.0, 3.5], "it is not stored at a time that it never had"
    letters = {letter.signal: letter for letter in sink.letters}
    for signal, value in (("a", 2.5), ("b", "y")):
        letter = letters[signal]
        assert (letter.store, letter.machine, letter.readings) == ("opcua-0", "drachten/shavers/3/cnc-07", 1)
        assert reason in letter.reason
        (held,) = msgspec.json.decode(letter.body)
        assert (held["value"], held["status"], held["source"] // 10_000) == (value, GOOD, int(tick) // 10_000)
        assert asked - 10**9 < letter.first <= time.time_ns()
        index = next(i for i, info in sink.infos.items() if info.key.name == signal)
        assert letter.counts == {index: 1}, "the ledger counts it as rejected"
    assert source.status.counters["times_set_aside"] == 2
    assert source.status.counters["times_replaced"] == 0
    source.source.resend(letters["a"]).result(5)
    (back,) = sink.backfilled
    assert (back.value.tolist(), back.time.tolist()) == ([2.5], [letters["a"].first])
    with pytest.raises(ValueError, match="impossible source time"):
        source.source.resend(msgspec.structs.replace(letters["a"], body=b"\x16"))


def test_a_clock_that_is_a_few_hours_wrong_is_still_believed(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    server = shared({"a": {"type": "Double", "value": 1}})
    run_source(table(server, ["a"]), sink)
    wait_until(lambda: sink.readings("a"))
    at = ticks(14 * 3600)  # local time sent as UTC, at the worst
    server.ask("set", name="a", type="Double", value=2, tick=at)
    wait_until(lambda: sink.readings("a")[-1].value == 2)
    assert sink.readings("a")[-1].time == (int(at) - EPOCH_TICKS) * 100
    assert sink.letters == []


def test_elements_and_fields_are_kept_aside_too(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    server = shared({"array": {"type": "Double", "value": [1, 2]}, "range": {"type": "ExtensionObject", "value": None}})
    source = run_source(table(server, ["array", "range"]), sink)
    wait_until(lambda: len(sink.readings()) == 4)
    server.ask("set", name="array", type="Double", value=[3, 4], tick="50000000")
    server.ask("set", name="range", type="ExtensionObject", value={"low": 2, "high": 3}, tick="50000000")
    wait_until(lambda: len(sink.letters) == 4)
    assert {letter.signal for letter in sink.letters} == {"array[0]", "array[1]", "range.Low", "range.High"}
    assert len(sink.readings()) == 4
    assert source.status.counters["times_set_aside"] == 4
    wait_until(lambda: not server.unacknowledged(source), what="acknowledged when the letters are kept")


def test_a_status_without_a_time_of_its_own_is_stored(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    server = shared({"a": {"type": "Double", "value": 1}})
    source = run_source(table(server, ["a"]), sink)
    wait_until(lambda: sink.readings("a"))
    before = time.time_ns()
    server.ask("set", name="a", type="Double", value=0, status="BadSensorFailure", tick="50000000")
    wait_until(lambda: len(sink.readings("a")) == 2)
    assert sink.readings("a")[-1][2:] == (None, 0x808C0000)
    assert before - 10**9 < sink.readings("a")[-1].time <= time.time_ns()
    assert source.status.counters["times_replaced"] == 1
    assert dt.datetime.fromtimestamp(sink.readings("a")[-1].time / 1e9, dt.UTC).year > 2000
