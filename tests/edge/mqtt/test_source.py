"""The source against a real mosquitto: nothing acknowledged before it is on disk, nothing lost, nothing stalls."""

import contextlib
import json
import math
import os
import signal
import socket
import threading
import time
from typing import Any

import pytest

TOPIC = "fieldlab/drachten/shavers/3/printer-1/nozzle"
NO_COMMUNICATION = 0x80310000


def test_readings_arrive_with_their_own_time_value_and_status(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    run(broker, sink)
    now = time.time_ns() // 1_000_000 * 1_000_000
    publish = publisher(broker).send
    publish(TOPIC, f'{{"value": 210.5, "ts": {now // 1_000_000}, "status": 0}}')
    publish(TOPIC, f'{{"value": true, "ts": {now}, "status": 1073741824}}')
    publish(TOPIC, f'{{"ts": {now // 1000}, "status": 2147483648}}')
    publish("fieldlab/drachten/shavers/3/printer-1/state", '{"value": "printing", "ts": "2024-05-01T10:00:00.25Z"}')
    wait_until(lambda: len(sink.readings()) == 4)
    first, second, third, fourth = sink.readings()
    assert first == ("printer-1/nozzle", now, 210.5, 0)
    assert second == ("printer-1/nozzle", now, 1.0, 0x40000000)
    assert third[:2] == ("printer-1/nozzle", now)
    assert math.isnan(third[2])
    assert third[3] == 0x80000000
    assert fourth == ("printer-1/state", 1_714_557_600_250_000_000, "printing", 0)
    assert sink.guarantees == {"printer-1/nozzle": "end-to-end", "printer-1/state": "end-to-end"}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_nothing_is_acknowledged_before_it_is_on_disk(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any, protocol: Any
) -> None:
    broker = mosquitto(max_inflight_messages=200)
    running = run(broker, sink, protocol=protocol)
    publish = publisher(broker).send
    publish(TOPIC, *(payload(float(i), i) for i in range(30)))
    wait_until(lambda: len(sink.values()) == 30 and running.counter("in_flight") == 0)

    sink.hold = True
    held = len(sink.calls)
    publish(TOPIC, *(payload(float(i), i) for i in range(30, 100)))
    wait_until(lambda: len(sink.values(held)) == 70)
    original = sink.deliveries(held)
    assert not any(redelivered for _, _, redelivered in original)

    again = len(sink.calls)
    running.cut()
    wait_until(lambda: len(sink.values(again)) == 70, what="all unacknowledged messages come again")
    assert sink.values(again) == [float(i) for i in range(30, 100)]
    assert sink.deliveries(again) == [(mid, digest, True) for mid, digest, _ in original]

    sink.release(held, again)  # on disk, but read from a connection that is gone: these may not be acknowledged now
    wait_until(lambda: running.counter("acknowledgements_dropped") == 70)
    third = len(sink.calls)
    running.cut()
    wait_until(lambda: len(sink.values(third)) == 70, what="they come a third time")

    sink.release()
    wait_until(lambda: running.counter("in_flight") == 0)
    sink.hold = False
    last = len(sink.calls)
    running.cut()
    wait_until(lambda: running.source.status().counters["connects"] == 4 and running.source.status().connected)
    publish(TOPIC, payload(100.0, 100))
    wait_until(lambda: sink.values(last))
    assert sink.values(last) == [100.0], "acknowledged messages do not come again"


def test_a_later_future_does_not_acknowledge_an_earlier_one(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any
) -> None:
    broker = mosquitto(max_inflight_messages=200)
    running = run(broker, sink)
    publish = publisher(broker).send
    sink.hold = True
    publish(TOPIC, payload(1.0, 1))
    wait_until(lambda: len(sink.calls) == 1)
    publish(TOPIC, payload(2.0, 2))
    wait_until(lambda: len(sink.calls) == 2)
    sink.release(1, 2)
    running.cut()
    wait_until(lambda: len(sink.values(2)) == 2)
    assert sink.values(2) == [1.0, 2.0]


def test_order_is_kept(mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any) -> None:
    broker = mosquitto()
    run(broker, sink)
    publisher(broker).send(TOPIC, *(payload(float(i), i) for i in range(2000)))
    wait_until(lambda: len(sink.values()) == 2000)
    assert sink.values() == [float(i) for i in range(2000)]
    ids = [mid for mid, _, _ in sink.deliveries()]
    assert ids == sorted(ids)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_messages_published_while_the_source_is_away_arrive(
    mosquitto: Any, run: Any, sink: Any, new_sink: Any, publisher: Any, payload: Any, wait_until: Any, protocol: Any
) -> None:
    broker = mosquitto()
    publish = publisher(broker).send
    run(broker, sink, protocol=protocol).stop()
    publish(TOPIC, *(payload(float(i), i) for i in range(500)))
    later = new_sink()
    run(broker, later, protocol=protocol)
    wait_until(lambda: len(later.values()) == 500)
    assert later.values() == [float(i) for i in range(500)]


def test_a_clean_session_keeps_nothing_and_does_not_claim_to(
    mosquitto: Any, run: Any, sink: Any, new_sink: Any, publisher: Any, payload: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    publish = publisher(broker).send
    run(broker, sink, session="clean").stop()
    publish(TOPIC, payload(1.0))
    later = new_sink()
    run(broker, later, session="clean")
    publish(TOPIC, payload(2.0))
    wait_until(lambda: later.values() == [2.0])
    assert later.guarantees == {"printer-1/nozzle": "from-receipt"}


def test_a_broker_restart_is_survived_and_marked(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any, isnan: Any
) -> None:
    broker = mosquitto(autosave=True)
    running = run(broker, sink)
    first = publisher(broker)
    first.send(TOPIC, payload(1.0, 1))
    wait_until(lambda: len(sink.values()) == 1)
    before = time.time_ns()
    broker.stop()
    wait_until(lambda: not running.source.status().connected)
    wait_until(lambda: "cannot be reached" in running.source.status().error)
    broker.start()
    wait_until(lambda: running.source.status().connected)
    publisher(broker).send(TOPIC, payload(2.0, 2))
    wait_until(lambda: len(sink.values()) == 2)
    lost = [reading for reading in sink.readings() if reading[3] == NO_COMMUNICATION]
    assert len(lost) == 1, "one point a signal, however often connecting failed"
    assert isnan(lost[0][2])
    assert before <= lost[0][1] <= time.time_ns()
    status = running.source.status()
    assert (status.error, status.counters["reconnects"], status.signals) == ("", 1, 1)


def test_a_killed_broker_loses_nothing_that_it_saved(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    running = run(broker, sink)
    sink.hold = True
    publisher(broker).send(TOPIC, *(payload(float(i), i) for i in range(10)))
    wait_until(lambda: len(sink.values()) == 10)
    database = broker.folder / "mosquitto.db"
    os.kill(broker.pid, signal.SIGUSR1)  # mosquitto saves its database
    wait_until(lambda: database.exists() and b'"value": 9.0' in database.read_bytes(), what="the broker saved")
    again = len(sink.calls)
    broker.kill()
    broker.start()
    wait_until(lambda: len(sink.values(again)) == 10)
    assert all(redelivered for _, _, redelivered in sink.deliveries(again))
    sink.hold = False
    sink.release()
    wait_until(lambda: running.counter("in_flight") == 0)


def test_a_new_broker_session_has_a_new_identity(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any
) -> None:
    broker = mosquitto(config=["persistent_client_expiration 1h"])
    first = run(broker, sink)
    publisher(broker).send(TOPIC, payload(1.0))
    wait_until(lambda: sink.calls)
    first.stop()
    second = run(broker, sink)
    assert second.source._session.now.id == sink.calls[0].delivery.session, "the session was kept"
    second.stop()
    broker.stop()
    (broker.folder / "mosquitto.db").unlink()
    broker.start()
    third = run(broker, sink)
    assert third.source._session.now.id != sink.calls[0].delivery.session


def test_poison_is_set_aside_acknowledged_and_never_stalls(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    running = run(broker, sink, in_flight=10)
    publish = publisher(broker).send
    poison = [b"\xff\xfe", b"{", b'{"value": {}}', b'{"v": 1}', b'{"value": 1, "ts": 5}', b"[" * 50_000]
    poison += [b'{"value": [1, 2], "ts": [1]}', b'{"value": 1, "status": "odd"}', b"", b"null"]
    for i in range(10):
        publish(TOPIC, *poison, payload(float(i), i))
    wait_until(lambda: len(sink.values()) == 10 and len(sink.letters()) == 100 and running.counter("in_flight") == 0)
    assert sink.values() == [float(i) for i in range(10)]
    letter = sink.letters()[0]
    assert (letter.store, letter.machine, letter.signal) == ("mqtt-0", "drachten/shavers/3/printer-1", "nozzle")
    assert (letter.body, letter.readings) == (b"\xff\xfe", 1)
    assert TOPIC in letter.reason
    assert running.counter("set_aside") == 100
    last = len(sink.calls)
    running.cut()
    wait_until(lambda: running.counter("connects") == 2 and running.source.status().connected)
    publish(TOPIC, payload(10.0, 10))
    wait_until(lambda: sink.values(last) == [10.0])
    assert running.counter("redelivered") == 0, "poison was acknowledged"


def test_poison_is_not_acknowledged_before_it_is_on_disk(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    running = run(broker, sink)
    sink.hold = True
    publisher(broker).send(TOPIC, "poison")
    wait_until(lambda: len(sink.letters()) == 1)
    running.cut()
    wait_until(lambda: len(sink.letters()) == 2)
    assert [redelivered for _, _, redelivered in sink.deliveries()] == [False, True]


def test_arrays_are_batches(mosquitto: Any, run: Any, sink: Any, publisher: Any, wait_until: Any) -> None:
    broker = mosquitto()
    run(broker, sink)
    now = time.time_ns() // 1_000_000
    publish = publisher(broker).send
    publish(TOPIC, json.dumps({"value": [1.5, 2, True, None, "x"], "ts": [now + i for i in range(5)]}))
    publish(TOPIC, json.dumps({"value": [3.0, 4.0], "ts": [now + 5, now + 6], "status": [0, 2147483648]}))
    publish(TOPIC, '{"value": [], "ts": []}')
    publish(TOPIC, json.dumps({"value": 9007199254740993, "ts": now + 7}))
    wait_until(lambda: len(sink.readings()) == 8)
    assert [time for _, time, _, _ in sink.readings()] == [(now + i) * 1_000_000 for i in range(8)]
    assert sink.values() == [1.5, 2.0, 1.0, "x", 3.0, 9007199254740992.0]
    first_rows = [int(row) for call in sink.calls for row in call.delivery.first_row]
    assert len(first_rows) == 3
    exact = [int(i) for call in sink.calls for i in call.batch.integer]
    assert exact == [9007199254740993]


def test_names_with_an_underscore_and_other_topics_are_not_read(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    running = run(broker, sink, topics=("fieldlab/#",))
    publish = publisher(broker).send
    publish("fieldlab/drachten/shavers/3/printer-1/_finding", payload(1.0))
    publish("fieldlab/hello", payload(2.0))
    publish(TOPIC, payload(3.0))
    wait_until(lambda: running.counter("messages") == 3 and running.counter("in_flight") == 0)
    assert sink.values() == [3.0]
    assert (running.counter("ignored"), running.counter("unmatched")) == (1, 1)


def test_qos_0_and_retained_messages(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    publish = publisher(broker).send
    other = TOPIC.replace("nozzle", "bed")
    publish(other, '{"value": 60.0}', retain=True)
    running = run(broker, sink)
    wait_until(lambda: len(sink.readings()) == 1)
    assert sink.readings()[0][2:] == (60.0, 0x40900000), "an old value without a time of its own is uncertain"
    publish(TOPIC, payload(1.0, 1))
    wait_until(lambda: sink.values() == [1.0])
    assert sink.guarantees["printer-1/nozzle"] == "end-to-end"
    publish(TOPIC, payload(2.0, 2), qos=0)
    wait_until(lambda: sink.values() == [1.0, 2.0])
    assert sink.guarantees["printer-1/nozzle"] == "from-receipt"
    assert sink.calls[-1].delivery is None
    assert (running.counter("qos0"), running.counter("retained")) == (1, 1)


def test_what_is_not_on_disk_is_bounded(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any
) -> None:
    broker = mosquitto(max_inflight_messages=1000)
    running = run(broker, sink, in_flight=50, protocol="3.1.1", keepalive=1.0)
    sink.hold = True
    publish = publisher(broker).send
    publish(TOPIC, *(payload(float(i), i) for i in range(300)), qos=0)
    publish(TOPIC, *(payload(float(i), i) for i in range(300)))
    wait_until(lambda: running.counter("in_flight") == 50)
    before = running.source.status()
    until = time.monotonic() + 2.5  # beyond 1.5 times the keep-alive, when the broker would give us up
    wait_until(lambda: time.monotonic() > until)
    after = running.source.status()
    assert (after.counters["in_flight"], after.counters["connects"], after.connected) == (50, 1, True)
    assert before.counters["messages"] == after.counters["messages"] == 50
    sink.hold = False
    sink.release()
    wait_until(lambda: len(sink.values()) == 600)
    assert running.counter("connects") == 1


def test_a_journal_that_fails_gets_the_messages_again(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    running = run(broker, sink)
    sink.hold = True
    publisher(broker).send(TOPIC, payload(1.0))
    wait_until(lambda: len(sink.calls) == 1)
    sink.hold = False
    sink.calls[0].future.set_exception(OSError("disk full"))
    wait_until(lambda: len(sink.values()) == 2)
    assert sink.deliveries()[1][2] is True
    assert running.counter("journal_refused") == 1


def test_a_wrong_password_is_said_and_tried_again(mosquitto: Any, run: Any, sink: Any, wait_until: Any) -> None:
    broker = mosquitto()
    right = broker.password_file.read_text()
    broker.password_file.write_text("wrong\n")
    running = run(broker, sink, wait=False)
    wait_until(lambda: "refuses user 'fieldlab'" in running.source.status().error)
    assert not running.source.status().connected
    broker.password_file.write_text(right)
    wait_until(lambda: running.source.status().connected, what="a repaired password needs no restart")


def test_a_second_client_with_our_name_is_said(
    mosquitto: Any, run: Any, sink: Any, new_sink: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    first = run(broker, sink)
    second = run(broker, new_sink(), wait=False)
    name = "if another client uses client id 'line-3-0'"  # mosquitto 2.0.11 closes the socket without a reason
    wait_until(lambda: any(name in each.source.status().error for each in (first, second)))


def test_filters_of_an_older_configuration_are_unsubscribed(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    run(broker, sink, topics=("fieldlab/+/+/+/printer-1/+", "fieldlab/+/+/+/printer-2/+")).stop()
    running = run(broker, sink, topics=("fieldlab/+/+/+/printer-1/+",))
    wait_until(lambda: running.source._session.now.filters == ("fieldlab/+/+/+/printer-1/+",))
    publish = publisher(broker).send
    publish(TOPIC.replace("printer-1", "printer-2"), payload(2.0))
    publish(TOPIC, payload(1.0))
    wait_until(lambda: sink.values() == [1.0])
    assert running.counter("messages") == 1


def test_a_silent_port_is_said(
    run: Any, sink: Any, free_port: Any, tmp_path: Any, wait_until: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("edge.sources.mqtt.source._ANSWER", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:

        class Mute:
            url = f"mqtt://127.0.0.1:{mute.getsockname()[1]}"
            user = ""
            password_file = None

        running = run(Mute, sink, wait=False)
        wait_until(lambda: "does not answer" in running.source.status().error)


def test_what_is_no_mqtt_ends_the_connection_only(run: Any, sink: Any, wait_until: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def answer() -> None:
            for _ in range(2):
                peer, _ = odd.accept()
                with peer, contextlib.suppress(OSError):
                    peer.recv(1000)
                    peer.sendall(b"\x20\x03\x00\x00\x00" + b"\x30\x03\xff\xff\xff" + b"HTTP/1.1 400 Bad Request")
                    peer.recv(1000)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()

        class Odd:
            url = f"mqtt://127.0.0.1:{odd.getsockname()[1]}"
            user = ""
            password_file = None

        running = run(Odd, sink, wait=False)
        wait_until(lambda: "cannot be read as MQTT" in running.source.status().error)
        thread.join(10)
        assert running.error is None


def test_a_failure_of_the_sink_ends_run_which_can_run_again(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any, monkeypatch: Any
) -> None:
    broker = mosquitto()
    running = run(broker, sink)

    def broken(*_args: Any, **_keys: Any) -> None:
        raise RuntimeError("closed")

    monkeypatch.setattr(sink, "append", broken)
    publisher(broker).send(TOPIC, payload(1.0))
    wait_until(lambda: running.error is not None)
    assert str(running.error) == "closed"
    assert "closed" in running.source.status().error
    running.error = None
    monkeypatch.undo()
    again = type(running)(running.source)
    wait_until(lambda: sink.values() == [1.0], what="not acknowledged, so it comes again")
    again.stop()
    assert again.error is None
