"""From a response's bytes to the sink: gaps, junk, and what may be acknowledged."""

import struct
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary

from edge.sources.base import SourceContext
from edge.sources.opcua.config import OpcuaConfig, OpcuaSignal, declared
from edge.sources.opcua.counters import Counters
from edge.sources.opcua.receiver import Receiver, SubscriptionLostError
from edge.sources.opcua.session import PublishSession
from edge.sources.opcua.signals import SignalMap

CONTEXT = SourceContext(name="opcua-0", agent="a", index=0, site="s", area="a", line="l", data=Path("data"))


@pytest.fixture
def receiver(sink: Any) -> tuple[Receiver, Counters]:
    signals = (
        OpcuaSignal(name="a", node="s=a", scale=0.1, offset=-5.0, map={"0": "idle"}, unit="mm"),
        OpcuaSignal(name="b", node="s=b", machine="other"),
    )
    config = OpcuaConfig(kind="opcua", url="opc.tcp://h:1", machine="m", signal=signals)
    counters = Counters()
    return Receiver("opcua-0", config.url, SignalMap(declared(config, CONTEXT), sink), sink, counters), counters


def body(sequence: int, values: Any = ((0, 1.5),), notification: Any = None) -> bytes:
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = ua.UInt32(9)
    message = response.Parameters.NotificationMessage
    message.SequenceNumber = ua.UInt32(sequence)
    change = ua.DataChangeNotification()
    change.MonitoredItems = [
        ua.MonitoredItemNotification(ClientHandle=ua.UInt32(handle), Value=ua.DataValue(ua.Variant(value)))
        for handle, value in values
    ]
    message.NotificationData = [notification or change] if values or notification else []
    return struct_to_binary(response)


def republished(sequence: int, values: Any = ((0, 1.5),)) -> bytes:
    """What Republish gives for `body(sequence, values)`."""
    response = ua.RepublishResponse()
    published = struct_from_binary(ua.PublishResponse, Buffer(body(sequence, values)))
    response.NotificationMessage = published.Parameters.NotificationMessage
    return struct_to_binary(response)


def test_raw_values_and_what_the_configuration_says(receiver: Any, sink: Any) -> None:
    taken = receiver[0].receive(body(1, [(0, 30.0), (1, [1.0, 2.0])]))
    assert (taken.subscription, taken.sequence) == (9, 1)
    assert [(r.name, r.value) for r in sink.readings()] == [("a", 30.0), ("b[0]", 1.0), ("b[1]", 2.0)]
    assert sink.scales == {"a": (0.1, -5.0), "b[0]": (1.0, 0.0), "b[1]": (1.0, 0.0)}
    assert sink.infos[0].states == {"0": "idle"}
    assert [sink.table[i].place.machine for i in range(3)] == ["m", "other", "other"]


def test_gaps_are_fetched_or_counted(receiver: Any, sink: Any) -> None:
    take, counters = receiver[0].receive, receiver[1]
    take(body(1))
    take(body(2))
    assert counters.gaps == 0
    take(body(6))
    assert receiver[0].missing() == [(9, 3), (9, 4), (9, 5)]
    again = receiver[0].receive_again(republished(4, [(0, 4.5)]), 9, 4)
    assert (again.subscription, again.sequence) == (9, 4)
    assert sink.readings()[-1].value == 4.5
    assert sink.deliveries[-1].redelivered.tolist() == [True]
    assert receiver[0].missing() == [(9, 3), (9, 5)]
    assert counters.gaps == 0
    assert not sink.overflow
    receiver[0].lost([(9, 3), (9, 5)])
    assert (counters.gaps, counters.republished) == (2, 1)
    assert sink.overflow == {0: 1}, "a signal that may have lost readings does not claim to be complete"
    take(body(7, ()))  # a keep-alive tells the next number, and is not counted
    take(body(7))
    assert receiver[0].missing() == []
    receiver[0].new_subscription()
    take(body(1))
    assert (counters.gaps, receiver[0].missing()) == (2, [])


def test_a_notification_is_the_same_however_it_comes(receiver: Any, sink: Any) -> None:
    receiver[0].receive(body(1, [(0, 4.5)]))
    receiver[0].receive_again(republished(1, [(0, 4.5)]), 9, 1)
    receiver[0].receive_again(republished(1, [(0, 5.5)]), 9, 1)
    first, same, other = sink.deliveries
    assert (first.session, first.ids, first.hashes) == (same.session, same.ids, same.hashes)
    assert other.hashes != first.hashes
    assert [bool(d.redelivered[0]) for d in (first, same, other)] == [False, True, True]


def test_a_gap_that_no_server_can_fill_is_bounded(receiver: Any) -> None:
    receiver[0].receive(body(1))
    receiver[0].receive(body(5_000_002))
    assert len(receiver[0].missing()) == 1000
    assert receiver[1].gaps == 5_000_000 - 1000


def test_an_earlier_process_may_have_received_what_the_server_holds(receiver: Any) -> None:
    receiver[0].go_on_with(9, [5, 4, 6])
    assert receiver[0].missing() == [(9, 4), (9, 5), (9, 6)]
    for number in (4, 5, 6):
        receiver[0].receive_again(republished(number), 9, number)
    receiver[0].receive(body(7))
    assert (receiver[0].missing(), receiver[1].gaps) == ([], 0)
    receiver[0].go_on_with(9, [6, 7, 8])
    assert receiver[0].missing() == [(9, 8)], "6 and 7 came already"


def test_what_cannot_be_read_again_goes_to_the_dead_letter(receiver: Any, sink: Any) -> None:
    assert receiver[0].receive_again(body(4), 9, 4).kept is not None
    assert receiver[0].receive_again(republished(5), 9, 4).kept is not None
    assert len(sink.letters) == receiver[1].undecodable == 2


def test_sequence_numbers_wrap_to_one(receiver: Any) -> None:
    receiver[0]._next[9] = 2**32 - 1
    receiver[0].receive(body(2**32 - 1))
    receiver[0].receive(body(1))
    assert receiver[1].gaps == 0


def test_a_keep_alive_is_not_acknowledged(receiver: Any) -> None:
    assert receiver[0].receive(body(1, ())) is None


def test_junk_goes_to_the_dead_letter_and_is_acknowledged_after_that(receiver: Any, sink: Any) -> None:
    good = body(4)
    junk = good[:-30]
    taken = receiver[0].receive(junk)
    assert (taken.subscription, taken.sequence) == (9, 4)
    taken.kept.result(5)
    (letter,) = sink.letters
    assert (letter.store, letter.body) == ("opcua-0", junk)
    assert receiver[1].undecodable == 1
    assert receiver[0].receive(b"\1") is None, "without a number there is nothing to acknowledge"
    assert receiver[0].receive(body(5)).sequence == 5


def test_a_handle_that_was_never_given_out(receiver: Any, sink: Any) -> None:
    receiver[0].receive(body(1, [(77, 1.0), (0, 2.0)]))
    assert [r.value for r in sink.readings()] == [2.0]
    assert receiver[0]._signals.unknown == 1


def test_a_status_change_ends_the_session(receiver: Any) -> None:
    change = ua.StatusChangeNotification(Status=ua.StatusCode(ua.UInt32(0x800A0000)))
    with pytest.raises(SubscriptionLostError, match="0x800a0000"):
        receiver[0].receive(body(1, (), change))


def test_overflow_is_told_to_the_sink(receiver: Any, sink: Any) -> None:
    plain = body(1, [(0, 1.0), (1, 2.0)])
    value = b"\x0b" + struct.pack("<d", 2.0)
    flagged = ua.StatusCode(ua.UInt32(0x480))
    change = ua.DataChangeNotification()
    change.MonitoredItems = [
        ua.MonitoredItemNotification(ClientHandle=ua.UInt32(1), Value=ua.DataValue(ua.Variant(2.0), flagged))
    ]
    assert value in plain
    receiver[0].receive(body(1, (), change))
    assert sink.overflow == {0: 1}
    assert sink.readings() == [("b", sink.readings()[0].time, 2.0, 0x480)]


def test_the_private_names_of_asyncua_are_there() -> None:
    """Pinned to asyncua 2.1: if this fails, read its new ua_session.py before changing anything."""
    for name in ("_send_request", "ensure_publish_loop", "close_session", "create_subscription"):
        assert callable(getattr(PublishSession.__mro__[1], name))
