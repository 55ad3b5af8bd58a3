"""Publish requests and responses on asyncua's connection: byte for byte its own, however the network cuts them."""

import asyncio
import functools
import struct
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import pytest
from asyncua import ua
from asyncua.client.ua_client import UASocketProtocol
from asyncua.common.connection import SecureConnection, TransportLimits
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sources.opcua.session import Acknowledgements, Receipt
from edge.sources.opcua.transport import PublishTransport


class Socket(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        self.sent.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that needs an event loop."""

    @functools.wraps(test)
    def run(**given: Any) -> None:
        asyncio.run(test(**given))

    return run


def connected() -> tuple[UASocketProtocol, Socket, PublishTransport]:
    inner, socket = UASocketProtocol(), Socket()
    inner.connection_made(socket)
    inner.authentication_token = ua.NodeId.from_string("ns=3;s=secret")
    inner._connection.security_token = ua.ChannelSecurityToken(ChannelId=5, TokenId=9)
    transport = PublishTransport.on(inner)
    assert socket.protocol is transport
    return inner, socket, transport


def server() -> SecureConnection:
    found = SecureConnection(UASocketProtocol()._connection.security_policy, TransportLimits())
    found.security_token = ua.ChannelSecurityToken(ChannelId=5, TokenId=9)
    return found


def response(number: int) -> bytes:
    found = ua.PublishResponse()
    found.Parameters.NotificationMessage.SequenceNumber = number
    return struct_to_binary(found)


def feed(transport: PublishTransport, data: bytes, size: int = 1 << 20) -> None:
    """As the event loop does."""
    while data:
        room = transport.get_buffer(-1)
        piece, data = data[: min(size, len(room))], data[min(size, len(room)) :]
        room[: len(piece)] = piece
        transport.buffer_updated(len(piece))


@in_a_loop
async def test_a_request_is_the_one_that_asyncua_would_send(monkeypatch: Any) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_000_000_123_456_000)  # asyncua reads microseconds
    inner, socket, transport = connected()
    for taken in ([], [(3, 8), (4, 2**32 - 1)]):
        transport.publish(taken)
        ours = socket.sent[-1]
        request = struct_from_binary(ua.PublishRequest, Buffer(ours[24:]))
        assert [
            (one.SubscriptionId, one.SequenceNumber) for one in request.Parameters.SubscriptionAcknowledgements
        ] == taken
        again = ua.PublishRequest()
        again.RequestHeader = request.RequestHeader
        again.Parameters.SubscriptionAcknowledgements = [ua.SubscriptionAcknowledgement(*one) for one in taken]
        inner._connection._sequence_number -= 1
        theirs = inner._connection.message_to_binary(struct_to_binary(again), request_id=inner._request_id)
        assert ours == theirs
        assert request.RequestHeader.RequestHandle == inner._request_handle


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["publish", "fault", "read", "chunked"]), min_size=1, max_size=8),
    st.sampled_from([1, 3, 7, 8, 9, 50, 1000, 1 << 20]),
)
def test_answers_reach_who_waits_however_they_are_cut(kinds: Any, size: Any) -> None:
    async def run() -> None:
        inner, _, transport = connected()
        peer = server()
        waiting, sent = [], b""
        for i, kind in enumerate(kinds):
            if kind == "read":
                future: Any = inner._send_request(ua.ReadRequest())
                body = struct_to_binary(ua.ReadResponse())
            else:
                future = transport.publish([])
                body = struct_to_binary(ua.ServiceFault()) if kind == "fault" else response(i)
            peer._limits.max_send_buffer = 64 if kind == "chunked" else 65535
            sent += peer.message_to_binary(body, request_id=inner._request_id)
            waiting.append((future, body))
        feed(transport, sent, size)
        for future, body in waiting:
            assert bytes(future.result()) == body
        assert inner._callbackmap == {}
        assert inner._connection._peer_sequence_number == peer._sequence_number

    asyncio.run(run())


@in_a_loop
async def test_an_answer_is_taken_and_the_next_request_sent_without_waking_anybody() -> None:
    inner, socket, transport = connected()
    peer = server()
    more: list[Any] = [[(3, 8)], [], None]
    taken: list[bytes] = []
    bodies = [response(i) for i in range(3)]

    def answered(body: bytes, _: Any) -> Any:
        taken.append(body)
        return more[len(taken) - 1]

    future = transport.publish([], answered)
    for i, body in enumerate(bodies):
        assert not future.done()
        feed(transport, peer.message_to_binary(body, request_id=inner._request_id))
        assert len(socket.sent) == min(i + 2, 3), "the next request leaves at once"
    assert taken == bodies
    assert future.result() == b"", "there is something to do first"
    sent = [struct_from_binary(ua.PublishRequest, Buffer(one[24:])) for one in socket.sent]
    acknowledged = [one.Parameters.SubscriptionAcknowledgements for one in sent]
    assert [[(a.SubscriptionId, a.SequenceNumber) for a in each] for each in acknowledged] == [[], [(3, 8)], []]
    again = transport.publish([], answered)
    refusal = ua.PublishResponse()
    refusal.ResponseHeader.ServiceResult = ua.StatusCode(ua.UInt32(0x80790000))  # BadNoSubscription
    feed(transport, peer.message_to_binary(struct_to_binary(refusal), request_id=inner._request_id))
    assert isinstance(again.result(), Buffer), "a refusal is for asyncua to raise, however it is sent"
    assert len(taken) == 3
    socket.closed = True
    lost = inner._callbackmap.setdefault(99, asyncio.get_running_loop().create_future())
    transport._waiting[99] = lambda *_: []
    feed(transport, peer.message_to_binary(response(9), request_id=99))
    assert isinstance(lost.exception(), ConnectionError)


@pytest.mark.parametrize("wrong", ["channel", "token", "sequence", "junk", "huge"])
@in_a_loop
async def test_what_is_wrong_with_a_message_is_for_asyncua_to_refuse(wrong: str, caplog: Any) -> None:
    _, socket, transport = connected()
    future = transport.publish([])
    data = bytearray(server().message_to_binary(response(1), request_id=1))
    feed(transport, bytes(data))
    assert future.done(), "the right one is taken"
    future = transport.publish([])
    good = server()
    good._sequence_number = 1
    data = bytearray(good.message_to_binary(response(2), request_id=2))
    at = {"channel": 8, "token": 12, "sequence": 16}.get(wrong, 0)
    data[at : at + 4] = struct.pack("<I", 77) if at else b"JUNK"
    if wrong == "huge":
        data = bytearray(b"MSGF" + struct.pack("<I", 1 << 30) + bytes(100))
    feed(transport, bytes(data))
    assert not future.done() or future.exception() is not None
    assert socket.closed is (wrong != "huge"), "asyncua waits for the rest of a message, whatever it says of its size"
    caplog.clear()


@in_a_loop
async def test_a_lost_connection_fails_what_waits() -> None:
    _, socket, transport = connected()
    future = transport.publish([])
    socket.protocol.connection_lost(ConnectionResetError("gone"))
    with pytest.raises(ConnectionError):
        await future
    with pytest.raises(ConnectionError):
        transport.publish([])


@in_a_loop
async def test_a_commit_wakes_nobody_unless_somebody_waits() -> None:
    acknowledgements = Acknowledgements()
    kept: list[Future[None]] = [Future() for _ in range(64)]
    for number, future in enumerate(kept, 1):
        acknowledgements.add(Receipt(1, number, future))
    assert acknowledgements.holding
    waiter = asyncio.create_task(acknowledgements.room())
    await asyncio.sleep(0)
    await asyncio.to_thread(kept[0].set_result, None)  # the journal's thread
    await asyncio.wait_for(waiter, 10)
    assert (acknowledgements.pending, acknowledgements.take()) == (63, [(1, 1)])
    await asyncio.to_thread(kept[1].set_exception, OSError("disk"))
    await asyncio.to_thread(kept[2].set_result, None)
    assert acknowledgements.take() == [(1, 3)], "what is on disk by now, though the loop was not woken"
    assert (acknowledgements.pending, acknowledgements.failed) == (61, 1)
    acknowledgements.forget()
    kept[3].set_result(None)
    assert acknowledgements.take() == []


@in_a_loop
async def test_the_private_names_of_asyncua_are_there() -> None:
    """Pinned to asyncua 2.1: if this fails, read its new connection.py before changing anything."""
    inner = UASocketProtocol()
    for name in ("_connection", "_callbackmap", "_request_id", "_request_handle", "receive_buffer"):
        assert hasattr(inner, name)
    for name in ("_limits", "_incoming_parts", "_sequence_number", "_peer_sequence_number", "security_token"):
        assert hasattr(inner._connection, name)
