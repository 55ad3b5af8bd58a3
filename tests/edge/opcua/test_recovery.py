"""Never dead, never silently stale: what happens to the server, and what the source makes of it."""

import os
import signal
import socket
from collections import Counter
from typing import Any

import pytest

import edge.sources.opcua.session as session_module

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


def test_namespaces_in_another_order_after_a_restart(one: Any, sink: Any, wait_until: Any) -> None:
    server, source = one
    server.kill()
    wait_until(lambda: not source.status.connected)
    server.start(noise=3, swap=True)
    wait_until(lambda: source.status.connected, 30)
    assert source.status.missing == {}
    server.ask("set", name="a", type="Double", value=5)
    server.ask("set", name="b", type="String", value="y")
    wait_until(lambda: sink.readings("a")[-1].value == 5 and sink.readings("b")[-1].value == "y")


def test_a_server_that_hangs_is_noticed(one: Any, sink: Any, wait_until: Any) -> None:
    server, source = one
    os.kill(server.process.pid, signal.SIGSTOP)  # the connection stays open, and nothing comes
    try:
        wait_until(lambda: not source.status.connected, 15, "the watchdog")
        assert {r.name for r in sink.readings() if r.status == NO_COMMUNICATION} == {"a", "b"}
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    wait_until(lambda: source.status.connected, 30)
    server.ask("set", name="a", type="Double", value=6)
    wait_until(lambda: sink.readings("a")[-1].value == 6)


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


def test_a_node_that_vanishes_and_returns(gentle: Any, sink: Any, wait_until: Any) -> None:
    server, source = gentle
    server.ask("remove", name="a")
    wait_until(lambda: "cnc-07/a" in source.status.missing, what="the vanished node is reported")
    assert source.status.connected
    server.ask("set", name="b", type="String", value="still here")
    wait_until(lambda: sink.readings("b")[-1].value == "still here")
    assert sink.readings("a")[-1].value is None
    server.ask("add", name="a", type="Double", value=9)
    wait_until(lambda: sink.readings("a")[-1].value == 9, what="the node is back")
    assert source.status.missing == {}


def test_a_stop_keeps_session_and_subscription_on_the_server(one: Any, wait_until: Any) -> None:
    server, source = one
    source.stop()
    (kept,) = server.subscriptions(source)
    assert kept["items"] == 2
    assert not source.status.connected
