"""Never dead, never silently stale: what happens to the server, and what the source makes of it."""

import os
import signal
import socket
import time
from collections import Counter
from typing import Any

import pytest

import edge.sources.opcua.session as session_module
import edge.sources.opcua.source as source_module

NO_COMMUNICATION = 0x80310000


VARIABLES = {"a": {"type": "Double", "value": 1}, "b": {"type": "String", "value": "x"}}


@pytest.fixture
def one(interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any) -> Any:
    """A server with two signals, and a source that reads them."""
    server = interop(variables=VARIABLES)
    source = run_source(table(server, ["a", "b"]), sink)
    wait_until(lambda: len(sink.readings()) == 2)
    return server, source


@pytest.fixture
def gentle(shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any) -> Any:
    """The same, on the server that all tests share."""
    server = shared(VARIABLES)
    source = run_source(table(server, ["a", "b"]), sink)
    wait_until(lambda: len(sink.readings()) == 2)
    return server, source


def test_acknowledged_only_after_the_commit(gentle: Any, sink: Any, wait_until: Any) -> None:
    server, source = gentle
    wait_until(lambda: not server.unacknowledged(source), what="what is committed is acknowledged")
    sink.hold()
    acknowledged = source.status.counters["acknowledged"]
    for i in range(5):
        server.ask("set", name="a", type="Double", value=10 + i)
        wait_until(lambda i=i: len(sink.readings("a")) == 2 + i)
    notifications = source.status.counters["notifications"]
    wait_until(lambda: len(server.unacknowledged(source)) == source.status.counters["pending"] == 5)
    # Two keep-alives later the answers of several more Publish requests have passed: still nothing was acknowledged.
    heard = source.source._receiver.heard
    wait_until(lambda: source.source._receiver.heard > heard + 2, what="keep-alives")
    assert len(server.unacknowledged(source)) == 5
    assert source.status.counters["acknowledged"] == acknowledged
    sink.release()
    wait_until(lambda: not server.unacknowledged(source), what="acknowledged after the commit")
    assert source.status.counters["acknowledged"] == acknowledged + 5
    assert source.status.counters["notifications"] == notifications
    assert source.status.counters["acks_refused"] == 0


def test_a_full_journal_holds_the_server_back_and_loses_nothing(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(session_module, "MAX_PENDING", 3)
    server = shared({"a": {"type": "Double", "value": 0}})
    source = run_source(table(server, ["a"], interval="50ms", lifetime="2400ms", keep_alive="800ms"), sink)
    wait_until(lambda: sink.readings("a"))
    sink.hold()
    server.ask("burst", names=["a"], rounds=200, every=20, type="Double")  # 4 s: longer than the lifetime
    assert source.status.counters["pending"] <= 3 + 4
    assert source.status.connected
    assert len(sink.readings("a")) < 150
    sink.release()
    expected = Counter(t for _, t, _, _ in server.produced("a"))
    wait_until(lambda: len(sink.readings("a")) == 201)
    assert Counter(r.time for r in sink.readings("a")) == expected
    assert source.status.counters["reconnects"] == 0


def test_a_killed_server_costs_one_status_a_signal_and_comes_back(one: Any, sink: Any, wait_until: Any) -> None:
    server, source = one
    server.kill()
    wait_until(lambda: not source.status.connected and source.status.error)
    wait_until(lambda: "refused the connection" in source.status.error, what="the reason in words")
    lost = [r for r in sink.readings() if r.status == NO_COMMUNICATION]
    assert sorted((r.name, r.value) for r in lost) == [("a", None), ("b", None)]
    server.start()
    wait_until(lambda: source.status.connected, 30)
    wait_until(lambda: sink.readings("a")[-1].status == 0)
    server.ask("set", name="a", type="Double", value=77)
    wait_until(lambda: sink.readings("a")[-1].value == 77)
    assert [r for r in sink.readings() if r.status == NO_COMMUNICATION] == lost, "once a loss, not once a try"
    assert source.status.counters["reconnects"] == 1
    assert source.status.error == ""


def test_namespaces_in_another_order_after_a_restart(one: Any, sink: Any, wait_until: Any, recovered: Any) -> None:
    server, source = one
    server.kill()
    wait_until(lambda: not source.status.connected)
    server.start(noise=3, swap=True)
    back = time.monotonic()
    wait_until(lambda: source.status.connected, 30)
    assert source.status.missing == {}
    server.ask("set", name="a", type="Double", value=5)
    server.ask("set", name="b", type="String", value="y")
    wait_until(lambda: sink.readings("a")[-1].value == 5 and sink.readings("b")[-1].value == "y")
    recovered("restart with another namespace order, from the server's start on", time.monotonic() - back, 20)


def test_a_server_that_hangs_is_noticed(one: Any, sink: Any, wait_until: Any, recovered: Any) -> None:
    server, source = one
    frozen = time.monotonic()
    os.kill(server.process.pid, signal.SIGSTOP)  # the connection stays open, and nothing comes
    try:
        wait_until(lambda: not source.status.connected, 15, "the watchdog")
        recovered("frozen server (SIGSTOP): noticed", time.monotonic() - frozen, 12)
        wait_until(lambda: {r.name for r in sink.readings() if r.status == NO_COMMUNICATION} == {"a", "b"})
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    thawed = time.monotonic()
    wait_until(lambda: source.status.connected, 30)
    server.ask("set", name="a", type="Double", value=6)
    wait_until(lambda: sink.readings("a")[-1].value == 6)
    recovered("frozen server: after it goes on", time.monotonic() - thawed, 20)


ACKNOWLEDGE = 28  # bytes of the answer to Hello, OPC 10000-6, 7.1.2.4


@pytest.mark.parametrize(
    ("octets", "event"),
    [
        (0, "accepts TCP, never answers"),
        (ACKNOWLEDGE, "answers Hello, then hangs"),
        (ACKNOWLEDGE + 50, "hangs in the middle of a chunk, at the connect"),
        (ACKNOWLEDGE + 1500, "hangs while the session is made"),
    ],
)
def test_a_server_that_hangs_at_the_connect(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, proxy: Any, recovered: Any,
    octets: int, event: str,
) -> None:  # fmt: skip
    server = shared(VARIABLES)
    between = proxy(server)
    source = run_source(table(server, ["a"], timeout="700ms"), sink)
    wait_until(lambda: sink.readings("a"))
    between.allow = octets
    between.cut()
    wait_until(lambda: "did not answer within 0.7 s" in source.status.error, what="said in words")
    assert not source.status.connected
    between.allow = None
    well = time.monotonic()
    server.ask("set", name="a", type="Double", value=11)
    wait_until(lambda: sink.readings("a")[-1].value == 11)
    recovered(f"{event}: after it answers again", time.monotonic() - well, 15)


@pytest.mark.parametrize(("octets", "event"), [(0, "half-open TCP"), (40, "hangs in the middle of a notification")])
def test_a_connection_that_goes_dead(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, proxy: Any, recovered: Any,
    octets: int, event: str,
) -> None:  # fmt: skip
    server = shared(VARIABLES)
    between = proxy(server)
    source = run_source(table(server, ["a"], timeout="700ms"), sink)
    wait_until(lambda: sink.readings("a"))
    dead = time.monotonic()
    between.hang_after(octets)
    server.ask("set", name="a", type="Double", value=7)
    wait_until(lambda: not source.status.connected, what="the silence")
    recovered(f"{event}: noticed", time.monotonic() - dead, 12)
    well = time.monotonic()
    between.allow = None
    between.cut()
    server.ask("set", name="a", type="Double", value=8)
    wait_until(lambda: sink.readings("a")[-1].value == 8)
    recovered(f"{event}: after the network is back", time.monotonic() - well, 15)
    wait_until(lambda: 7.0 in [r.value for r in sink.readings("a")], what="what it held meanwhile")
    assert source.status.counters["gaps"] == 0


def test_the_clock_offset_is_measured_again_during_a_session(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(source_module, "CLOCK_EVERY", 0.2)
    server = shared(VARIABLES)
    source = run_source(table(server, ["a"]), sink)
    wait_until(lambda: sink.readings("a"))
    assert abs(source.status.counters["clock_offset_ms"]) < 1000
    source.source._clock_offset = 99.0
    wait_until(lambda: abs(source.status.counters["clock_offset_ms"]) < 1000, what="measured again")
    assert source.status.counters["reconnects"] == 0


def test_a_server_that_accepts_and_never_answers(
    sink: Any, table: Any, run_source: Any, wait_until: Any, free_port: Any
) -> None:
    port = free_port()

    class Deaf:
        prefix = ""
        uri = "urn:x"
        url = f"opc.tcp://127.0.0.1:{port}/x"

    with socket.create_server(("127.0.0.1", port)):
        source = run_source(table(Deaf, ["a"], timeout="200ms"), sink)
        wait_until(lambda: "did not answer within 0.2 s" in source.status.error)
        source.stop()
    assert sink.readings() == [], "nothing was connected, so nothing was lost"


def test_a_node_that_vanishes_and_returns(gentle: Any, sink: Any, wait_until: Any, recovered: Any) -> None:
    server, source = gentle
    removed = time.monotonic()
    server.ask("remove", name="a")
    wait_until(lambda: "cnc-07/a" in source.status.missing, what="the vanished node is reported")
    assert source.status.connected
    server.ask("set", name="b", type="String", value="still here")
    wait_until(lambda: sink.readings("b")[-1].value == "still here")
    assert sink.readings("a")[-1].value is None
    recovered("vanished node: told, the others go on", time.monotonic() - removed, 10)
    added = time.monotonic()
    server.ask("add", name="a", type="Double", value=9)
    wait_until(lambda: sink.readings("a")[-1].value == 9, what="the node is back")
    recovered("vanished node: back, with retry_missing = 0.3 s", time.monotonic() - added, 10)
    assert source.status.missing == {}


def test_an_item_that_the_server_forgot_is_made_anew(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    server = shared(
        {**VARIABLES, "still": {"type": "Double", "value": 4}, "array": {"type": "Double", "value": [1, 2]}}
    )
    source = run_source(table(server, ["a", "b", "still", "array"], stale="1s"), sink)
    wait_until(lambda: len(sink.readings()) == 5)
    assert server.ask("stall", name="a")["stalled"] == server.ask("stall", name="b")["stalled"] == 1
    server.ask("set", name="a", type="Double", value=2)
    server.ask("set", name="b", type="String", value="y")
    # Keep-alives go on. Within 1.5 times `stale` and a second to make sure, plus what a slow machine needs.
    wait_until(lambda: sink.readings("a")[-1].value == 2, 10, "the value that was held back")
    wait_until(lambda: sink.readings("b")[-1].value == "y")
    server.ask("set", name="a", type="Double", value=3)
    wait_until(lambda: sink.readings("a")[-1].value == 3)
    assert source.status.counters["recreated"] == 2, "and not those that are silent because nothing changes"
    assert source.status.counters["reconnects"] == 0
    assert abs(source.status.counters["clock_offset_ms"]) < 1000


@pytest.mark.parametrize("what", ["session", "subscription"])
def test_a_session_or_subscription_that_the_server_ended(
    gentle: Any, sink: Any, wait_until: Any, recovered: Any, what: str
) -> None:
    server, source = gentle
    ended = time.monotonic()
    server.server.ask("trouble", id=source.source._feed.id, what=what)
    wait_until(lambda: source.status.counters["reconnects"] == 1, 10, "a new session")
    server.ask("set", name="a", type="Double", value=8)
    wait_until(lambda: sink.readings("a")[-1].value == 8)
    service = {"session": "BadSessionIdInvalid", "subscription": "BadNoSubscription"}[what]
    # 1 to 2 s here, of which 0.25 to 0.5 are the pause before the first try.
    recovered(f"{service}: the server ended the {what}", time.monotonic() - ended, 10)
    assert source.status.error == ""


def test_fewer_publish_requests_where_the_server_keeps_few(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, recovered: Any
) -> None:
    server = interop(variables=VARIABLES, publishLimit=2)
    source = run_source(table(server, ["a"]), sink)
    wait_until(lambda: sink.readings("a"))
    for i in range(10):
        server.ask("set", name="a", type="Double", value=100 + i)
        wait_until(lambda i=i: sink.readings("a")[-1].value == 100 + i)
    wait_until(lambda: source.status.counters["too_many_publish_requests"] >= 1)
    asked = time.monotonic()
    server.ask("set", name="a", type="Double", value=-1)
    wait_until(lambda: sink.readings("a")[-1].value == -1)
    recovered("BadTooManyPublishRequests: the next value, without a new session", time.monotonic() - asked, 5)
    assert source.status.counters["reconnects"] == 0
    assert source.status.counters["gaps"] == 0


def test_a_stop_keeps_session_and_subscription_on_the_server(one: Any, wait_until: Any) -> None:
    server, source = one
    source.stop()
    (kept,) = server.subscriptions(source)
    assert kept["items"] == 2
    assert not source.status.connected
