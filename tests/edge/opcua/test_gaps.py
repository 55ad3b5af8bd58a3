"""Gaps: noticed, kept visible, and read again from the server's history where it keeps one."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from edge.sources.opcua.config import DeclaredSignal
from edge.sources.opcua.gaps import GapKeeper
from fieldlab.model import Batch, Place, SignalInfo, SignalKey

KEPT = 100_000
DOUBLE = {"type": "Double", "value": 0}
KEEPING = {**DOUBLE, "history": KEPT}
BAD_NO_COMMUNICATION = 0x80310000


def expected(server: Any, *names: str) -> Counter[Any]:
    """(signal, time, value) of everything that the server says it produced."""
    return Counter((n, t, float(v)) for n, t, v, status in server.produced() if n in names and not status)


def kept(sink: Any) -> Counter[Any]:
    """The same of what the sink has, live and back-filled."""
    found: Counter[Any] = Counter()
    for batch in [*list(sink.batches), *list(sink.backfilled)]:
        for signal, time, value, status in zip(
            batch.signal.tolist(), batch.time.tolist(), batch.value.tolist(), batch.status.tolist(), strict=True
        ):
            if not status & 0x80000000:
                found[sink.table[signal].name, time, value] += 1
    return found


def gaps(sink: Any, cause: str = "") -> list[Any]:
    return [gap for gap in sink.known_gaps.values() if cause in ("", gap.cause)]


def settled(sink: Any) -> bool:
    return bool(sink.known_gaps) and all(gap.state == "closed" for gap in gaps(sink))


def backfilled(sink: Any) -> int:
    return sum(len(batch) for batch in list(sink.backfilled))


def twice(sink: Any) -> set[str]:
    return {name for (name, *_), count in kept(sink).items() if count > 1}


def forget(server: Any, source: Any) -> None:
    """The server gives the subscription up, as it does when nobody has asked for too long."""
    if source.status.counters["notifications"] and hasattr(source.opcua, "_feed"):
        server.ask("trouble", id=source.opcua._feed.id, what="subscription")


def cut(between: Any, *, off: bool) -> None:
    between.open = not off
    if off:
        between.cut()


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
def test_a_long_cut_is_read_again_once(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, proxy: Any, mode: str
) -> None:
    names = ["a", "b", "c"]
    server = shared(dict.fromkeys(names, KEEPING))
    between = proxy(server)
    keys = {"mode": "poll", "sampling": "10ms"} if mode == "poll" else {}
    source = run_source(table(server, names, **keys), sink)
    wait_until(lambda: len(sink.readings()) == 3)
    server.ask("set", name="a", type="Double", value=0.5)
    wait_until(lambda: len(sink.readings("a")) == 2)
    cut(between, off=True)
    wait_until(lambda: {(g.key.name, g.state) for g in gaps(sink, "source_down")} == {(n, "open") for n in names})
    assert {gap.key.name: gap.time for gap in gaps(sink)} == {n: t for n, t, *_ in server.produced()}
    server.ask("burst", names=["a", "b"], rounds=200, every=1, type="Double")
    forget(server, source)
    cut(between, off=False)
    wait_until(lambda: settled(sink), 30, "the gaps are closed")
    assert set(kept(sink)) == set(expected(server, *names)), "everything"
    assert twice(sink) <= {"c"}, "and nothing twice, but what had not changed"
    recovered = {gap.key.name: gap.recovered for gap in gaps(sink)}
    assert recovered == {"a": 199, "b": 199, "c": 0}, "all but the last, which came live"
    assert source.status.counters["recovered"] == 398 == backfilled(sink)
    source.stop()
    again = run_source(table(server, names, **keys), sink)
    wait_until(lambda: again.status.connected and len(gaps(sink)) == 6 and settled(sink), 30)
    assert backfilled(sink) == 398, "a second run changes nothing"


def test_an_agent_that_was_killed_reads_what_it_missed(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, proxy: Any
) -> None:
    server = shared({"a": KEEPING, "quiet": KEEPING})
    between = proxy(server)
    source = run_source(table(server, ["a", "quiet"]), sink)
    wait_until(lambda: len(sink.readings()) == 2)
    cut(between, off=True)
    source.stop()
    before = len(sink.batches)
    server.ask("burst", names=["a"], rounds=100, every=1, type="Double")
    forget(server, source)
    sink.known_gaps.clear()  # a kill leaves no time to say anything
    del sink.batches[before:]
    cut(between, off=False)
    again = run_source(table(server, ["a", "quiet"]), sink)
    wait_until(lambda: settled(sink), 30)
    assert {(g.key.name, g.cause, g.recovered) for g in gaps(sink)} == {
        ("a", "agent_down", 99),
        ("quiet", "agent_down", 0),
    }
    assert {k for k in kept(sink) if k[0] == "a"} == set(expected(server, "a"))
    assert twice(sink) <= {"quiet"}
    assert again.status.counters["resumed"] == 0


@pytest.mark.parametrize("what", ["cut", "restart"])
def test_what_the_server_has_kept_closes_the_gap(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, proxy: Any, what: str
) -> None:
    server = shared({"a": DOUBLE})  # no history is needed
    between = proxy(server)
    source = run_source(table(server, ["a"]), sink)
    wait_until(lambda: sink.readings("a") and source.status.counters["acknowledged"])
    cut(between, off=True)
    wait_until(lambda: not source.status.connected)
    if what == "restart":
        source.stop()
        assert [(g.cause, g.state) for g in gaps(sink)] == [("source_down", "open")]
    for i in range(1, 6):
        server.ask("set", name="a", type="Double", value=i)
    cut(between, off=False)
    if what == "restart":
        source = run_source(table(server, ["a"]), sink)
    wait_until(lambda: settled(sink), 20)
    assert source.status.counters["resumed"] == 1
    (one,) = gaps(sink)
    assert (one.cause, one.recovered) == ("source_down", 5)
    assert one.end > one.time
    assert set(kept(sink)) == set(expected(server, "a")), "the journal knows what is sent twice"
    assert not backfilled(sink)


def test_a_full_queue_is_refilled(shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any) -> None:
    server = shared({"a": KEEPING, "b": DOUBLE})
    source = run_source(table(server, ["a", "b"], interval="500ms", queue=2), sink)
    wait_until(lambda: source.status.signals == 2 and len(sink.readings()) == 2)
    for _ in range(3):
        server.ask("burst", names=["a", "b"], rounds=30, every=2, type="Double")
    last = server.produced("a")[-1][1]
    wait_until(lambda: any(r.time == last for r in sink.readings("a")))
    wait_until(
        lambda: gaps(sink, "queue_overflow") and {g.state for g in gaps(sink) if g.key.name == "a"} == {"closed"}, 30
    )
    wait_until(lambda: all("no history" in g.detail for g in gaps(sink) if g.key.name == "b"), 20)
    assert {k for k in kept(sink) if k[0] == "a"} == set(expected(server, "a"))
    assert kept(sink) & expected(server, "a") == expected(server, "a"), "none twice"
    missing = sum(expected(server, "b").values()) - sum(n for k, n in kept(sink).items() if k[0] == "b")
    assert missing > 0
    assert {g.state for g in gaps(sink) if g.key.name == "b"} == {"ended"}, "nobody has them, and all can see it"
    assert sum(sink.overflow.values()) >= 2


def test_a_queue_that_was_full_while_nobody_listened_is_refilled(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, proxy: Any
) -> None:
    server = shared({"a": KEEPING})
    between = proxy(server)
    source = run_source(table(server, ["a"], queue=5), sink)
    wait_until(lambda: sink.readings("a") and not server.unacknowledged(source))
    cut(between, off=True)
    wait_until(lambda: not source.status.connected)
    server.ask("burst", names=["a"], rounds=60, every=1, type="Double")
    cut(between, off=False)
    wait_until(lambda: gaps(sink, "queue_overflow") and settled(sink), 30)
    assert set(kept(sink)) == set(expected(server, "a"))
    assert source.status.counters["resumed"] == 1
    recovered = {cause: sum(g.recovered for g in gaps(sink, cause)) for cause in ("queue_overflow", "source_down")}
    assert sum(recovered.values()) == 60, "some the server had kept, the others its history"
    assert recovered["queue_overflow"] > 20


def test_lost_notifications_are_read_again(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    server = shared({"a": KEEPING, "b": KEEPING})
    source = run_source(table(server, ["a", "b"], interval="200ms"), sink)
    wait_until(lambda: source.status.signals == 2 and len(sink.readings()) == 2)
    (subscription,) = server.subscriptions(source)
    server.ask("burst", names=["a"], rounds=20, every=1, type="Double")
    lost = server.ask("lose", id=subscription["id"])["lost"]
    server.ask("set", name="a", type="Double", value=99)
    wait_until(lambda: source.status.counters["gaps"] == 1, what="the hole in the numbers")
    wait_until(lambda: settled(sink), 30)
    assert {(g.key.name, g.cause) for g in gaps(sink)} == {("a", "notification_lost"), ("b", "notification_lost")}
    assert sum(g.recovered for g in gaps(sink)) == lost > 0
    assert kept(sink) == expected(server, "a", "b")


def test_without_history_the_gap_stays_to_be_seen(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, proxy: Any
) -> None:
    server = shared({"a": DOUBLE})
    between = proxy(server)
    config = table(server, ["a"])
    source = run_source(config, sink)
    wait_until(lambda: sink.readings("a"))
    cut(between, off=True)
    wait_until(lambda: not source.status.connected)
    server.ask("burst", names=["a"], rounds=20, every=1, type="Double")
    forget(server, source)
    cut(between, off=False)
    wait_until(lambda: gaps(sink)[0].detail.startswith("the server keeps no history"), 20)
    (one,) = gaps(sink)
    first, *_, last = [t for _, t, *_ in server.produced("a")]
    assert (one.state, one.time, one.end, one.recovered) == ("ended", first, last, 0)


def test_history_of_a_server_that_was_restarted_covers_a_part(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, proxy: Any
) -> None:
    server = interop(variables={"a": KEEPING})
    between = proxy(server)
    source = run_source(table(server, ["a"]), sink)
    wait_until(lambda: sink.readings("a"))
    cut(between, off=True)
    server.kill()
    wait_until(lambda: not source.status.connected, 20)
    server.start()
    server.ask("produce", names=["a"], rounds=5, type="Double")
    cut(between, off=False)
    wait_until(lambda: "begins at" in gaps(sink)[0].detail, 30)
    (one,) = gaps(sink)
    assert (one.cause, one.state) == ("source_down", "ended")
    said = [t for _, t, *_ in server.produced("a")]
    assert sink.rests[one.id] == [(one.time, said[0])], "what was before the restart is missing; the rest is closed"
    assert sorted(t for batch in sink.backfilled for t in batch.time.tolist()) == [t for t in said if t < one.end]


def test_history_off_reads_nothing(shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any) -> None:
    server = shared({"a": KEEPING})
    source = run_source(table(server, ["a"], interval="300ms", queue=2, history="off"), sink)
    wait_until(lambda: sink.readings("a"))
    server.ask("burst", names=["a"], rounds=30, every=2, type="Double")
    wait_until(lambda: gaps(sink, "queue_overflow"))
    source.stop()
    assert source.status.counters["history_reads"] == 0
    assert {g.state for g in gaps(sink)} == {"ended"}


def test_signals_that_were_silent_since_the_restart_are_told_of_a_loss_too(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, proxy: Any
) -> None:
    server = shared({"a": DOUBLE, "quiet": DOUBLE})
    between = proxy(server)
    source = run_source(table(server, ["a", "quiet"]), sink)
    wait_until(lambda: len(sink.readings()) == 2)
    source.stop()
    forget(server, source)
    server.ask("remove", name="quiet")  # so that nothing comes of it
    again = run_source(table(server, ["a", "quiet"]), sink)
    wait_until(lambda: again.status.connected and again.status.counters["readings"] == 1)
    cut(between, off=True)
    wait_until(lambda: sink.readings("a")[-1].status == BAD_NO_COMMUNICATION, 20)
    assert sink.readings("quiet")[-1].status == BAD_NO_COMMUNICATION
    assert len(sink.table) == 2, "and no other signal"
    assert {(g.key.name, g.state) for g in gaps(sink)} >= {("quiet", "open")}


# ---- the keeper alone ----


@pytest.fixture
def keeper(sink: Any) -> Any:
    return GapKeeper("opcua-0", sink, remember=True)


def note(keeper: Any, sink: Any, *rows: tuple[int, int], status: int = 0) -> None:
    batch = Batch.of([s for s, _ in rows], [t for _, t in rows], [1.0] * len(rows), [status] * len(rows))
    lost = {s: 1 for s, _ in rows} if status else {}
    keeper.note(batch, lost, again=False)
    sink.append(batch)


@pytest.fixture
def two(sink: Any) -> Any:
    place = Place("a", "b", "c", "d")
    for name in "ab":
        sink.describe(SignalInfo(key=SignalKey(place, name)))
    return sink


def test_a_reading_that_is_no_newer_says_that_nothing_changed(keeper: Any, two: Any) -> None:
    note(keeper, two, (0, 100), (1, 100))
    keeper.lose(two_signals(), "why")
    keeper.start_anew()
    note(keeper, two, (0, 100), (1, 200))
    assert {(g.key.name, g.state, g.end == 200) for g in gaps(two)} == {("a", "closed", False), ("b", "ended", True)}


def test_a_server_whose_clock_went_back_proves_nothing(keeper: Any, two: Any) -> None:
    note(keeper, two, (0, 10**18), (1, 10**18))
    keeper.lose(two_signals(), "why")
    keeper.start_anew()
    note(keeper, two, (0, 10**17), (1, 10**17))
    assert {g.state for g in gaps(two)} == {"unverifiable"}


def test_a_queue_that_overflows_is_a_gap_between_the_readings_around(keeper: Any, two: Any) -> None:
    note(keeper, two, (0, 100), (1, 100))
    note(keeper, two, (0, 150))
    note(keeper, two, (0, 200), status=0x480)
    (one,) = gaps(two)
    assert (one.cause, one.time, one.end, one.lost) == ("queue_overflow", 150, 200, 1)
    assert keeper.heard(0, 0, 1000).tolist() == [200]
    keeper.forget()
    assert keeper.heard(0, 0, 1000).tolist() == []


def test_lost_notifications_are_a_gap_from_before_the_hole(keeper: Any, two: Any) -> None:
    note(keeper, two, (0, 100), (1, 110))
    keeper.hole()
    note(keeper, two, (0, 300))
    keeper.notifications_lost(two_signals(), 2, 400)
    keeper.whole()
    assert {(g.key.name, g.time, g.end) for g in gaps(two)} == {("a", 100, 400), ("b", 110, 400)}
    assert keeper.heard(0, 100, 400).tolist() == [300], "known already: it is not read again"


def test_a_subscription_that_went_on_closes_the_gap_only_if_nothing_is_missing(keeper: Any, two: Any) -> None:
    for lost in (0, 1):
        two.known_gaps.clear()
        note(keeper, two, (0, 100 + lost), (1, 100 + lost))
        keeper.lose(two_signals(), "why")
        keeper.go_on()
        note(keeper, two, (0, 100 + lost), (0, 150), (0, 150))
        assert keeper.settling
        if lost:
            keeper.notifications_lost(two_signals(), lost, 190)
        keeper.settle(200, {})
        expected = ("ended", 0) if lost else ("closed", 1)
        assert {(g.key.name, g.end, g.state, g.recovered) for g in gaps(two)} == {
            ("a", 200, *expected), ("b", 200, expected[0], 0),
        }  # fmt: skip
        assert not keeper.settling


def test_a_signal_that_is_no_longer_configured_leaves_no_gap_open(keeper: Any, two: Any) -> None:
    note(keeper, two, (0, 100), (1, 100))
    keeper.lose(two_signals(), "why")
    later = GapKeeper("opcua-0", two)
    kept = DeclaredSignal(key=two.table[1], info=two.infos[1])
    later.adopt([kept], whole=False)
    assert {g.state for g in gaps(two)} == {"open"}
    later.adopt([kept], whole=True)
    assert {(g.key.name, g.state) for g in gaps(two)} == {("a", "unverifiable"), ("b", "open")}


def test_a_loss_while_the_first_readings_are_awaited_is_the_same_gap(keeper: Any, two: Any) -> None:
    note(keeper, two, (0, 100), (1, 100))
    for _ in range(2):
        keeper.lose(two_signals(), "why")
        keeper.start_anew()
    note(keeper, two, (0, 300), (1, 300))
    assert {(g.key.name, g.time, g.end, g.state) for g in gaps(two)} == {
        ("a", 100, 300, "ended"), ("b", 100, 300, "ended"),
    }  # fmt: skip


def two_signals() -> Any:
    return np.array([0, 1], np.uint32)
