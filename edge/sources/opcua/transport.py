"""Publish requests and their responses on asyncua's connection, without an object for each field of each message.

At ten notifications a second most of their cost is code that runs too seldom to stay in the processor's cache, so what
runs for each is kept short. Everything else, and every message that is not plain, goes the way of asyncua, whose
protocol stays in charge of the channel; what is encrypted, too. Private names of asyncua used here:
`UASocketProtocol._connection`, `_callbackmap`, `_request_id`, `_request_handle` and `SecureConnection._limits`,
`_incoming_parts`, `_sequence_number`, `_peer_sequence_number` (pinned to asyncua 2.1; a test holds them).
"""

# ruff: noqa: SLF001  asyncua has no public way to its channel's numbers; they are named above

import asyncio
import struct
import time
from collections.abc import Callable
from typing import Final

from asyncua.client.ua_client import UASocketProtocol
from asyncua.common.utils import Buffer
from asyncua.crypto.security_policies import CryptographyNone
from asyncua.ua.ua_binary import nodeid_to_binary

from edge.sources.opcua.wire import EPOCH_TICKS

_ROOM: Final = 1 << 18  # of a chunk of 64 KiB, four
_PUBLISH_REQUEST: Final = b"\x01\x00\x3a\x03"  # NodeId 826, NodeIds.csv
_PUBLISH_RESPONSE: Final = b"\x01\x00\x3d\x03"  # NodeId 829
_RESULT: Final = 4 + 8 + 4 + 3  # the high byte of the ServiceResult in a response
_BAD: Final = 0x80
# MessageType and chunk, size, channel, token, sequence number, request id: OPC 10000-6, 6.7.2 and 7.1.2.2.
_FRAME: Final = struct.Struct("<4sIIIII")
_SIZE: Final = struct.Struct("<I")
# RequestHeader behind the token (OPC 10000-4, 7.32): timestamp, handle, no diagnostics, no audit id, no timeout, no
# additional header; then the count of acknowledgements.
_HEADER: Final = struct.Struct("<qIIiI3si")
_ACKNOWLEDGEMENT: Final = struct.Struct("<II")
_LAST: Final = (1 << 32) - 1


# (body, future of the request) → what to acknowledge next, None if there is something to do first; does not raise.
Answered = Callable[[bytes, "asyncio.Future[bytes | Buffer]"], list[tuple[int, int]] | None]


class PublishTransport(asyncio.BufferedProtocol):
    """Stands between the socket and asyncua's protocol.

    It gathers what the network cuts into pieces (asyncua copies all it has at each of them), takes unencrypted
    PublishResponses of one chunk itself and gives the rest to asyncua.
    """

    def __init__(self, inner: UASocketProtocol) -> None:
        self._inner = inner
        self._room = bytearray(_ROOM)
        self._view = memoryview(self._room)
        self._filled = 0
        self._waiting: dict[int, Answered | None] = {}
        self._token: object = None
        self._prefix = b""

    @classmethod
    def on(cls, inner: UASocketProtocol) -> "PublishTransport":
        """Take over the socket of `inner`.

        Raises:
            ConnectionError: if it has none any more.
        """
        if inner.transport is None:
            raise ConnectionError("the connection is not open")
        own = cls(inner)
        inner.transport.set_protocol(own)
        return own

    def publish(
        self, acknowledgements: list[tuple[int, int]], answered: "Answered | None" = None
    ) -> "asyncio.Future[bytes | Buffer]":
        """Send a Publish request; what it returns is the body of its answer, which may be a ServiceFault in a `Buffer`.

        Args:
            acknowledgements: (subscription, sequence number) each.
            answered: takes plain answers at once, and says what the next request, which is sent at once as well, is to
                acknowledge. While it does, nobody is woken; where it says None the future is done, and empty.

        Raises:
            ConnectionError: if the connection is closed.
        """
        future: asyncio.Future[bytes | Buffer] = asyncio.get_running_loop().create_future()
        self._send(future, acknowledgements, answered)
        return future

    def _send(
        self,
        future: "asyncio.Future[bytes | Buffer]",
        acknowledgements: list[tuple[int, int]],
        answered: "Answered | None",
    ) -> None:
        inner = self._inner
        transport = inner.transport
        if transport is None or transport.is_closing():
            raise ConnectionError("the connection is not open")
        inner.revolve_security_token()
        connection = inner._connection
        number = inner._request_id = inner._request_id + 1
        inner._request_handle += 1
        token = inner.authentication_token
        if token is not self._token:
            self._token, self._prefix = token, _PUBLISH_REQUEST + nodeid_to_binary(token)
        now = time.time_ns() // 100 + EPOCH_TICKS
        header = _HEADER.pack(now, inner._request_handle, 0, -1, 0, b"\0\0\0", len(acknowledgements))
        body = b"".join((self._prefix, header, *[_ACKNOWLEDGEMENT.pack(*one) for one in acknowledgements]))
        if type(connection.security_policy.symmetric_cryptography) is CryptographyNone and len(body) < 4096:
            sequence = connection._sequence_number + 1
            connection._sequence_number = sequence = 1 if sequence > _LAST else sequence
            channel = connection.security_token
            frame = _FRAME.pack(b"MSGF", _FRAME.size + len(body), channel.ChannelId, channel.TokenId, sequence, number)
            message = frame + body
        else:
            message = connection.message_to_binary(body, request_id=number)
        inner._callbackmap[number] = future
        self._waiting[number] = answered
        transport.write(message)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  asyncio's signature
        """Where the next bytes go."""
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """They came."""
        filled = self._filled + nbytes
        pos = 0
        inner = self._inner
        while filled > pos:
            size = filled - pos
            if not inner.receive_buffer:
                if size < 8:
                    break
                (wanted,) = _SIZE.unpack_from(self._room, pos + 4)
                if 8 <= wanted <= _ROOM:  # else it is too large to wait for here, or junk: asyncua's part
                    if size < wanted:
                        break
                    size = wanted
            if not self._take(pos, size):
                inner.data_received(bytes(self._view[pos : pos + size]))
            pos += size
        if pos and pos < filled:
            self._room[: filled - pos] = self._room[pos:filled]
        self._filled = filled - pos

    def _take(self, pos: int, size: int) -> bool:
        """Give the message to who waits for it, if it is a PublishResponse that is plain in every way."""
        if size < _FRAME.size + _RESULT + 1:
            return False
        kind, _, channel, token, sequence, number = _FRAME.unpack_from(self._room, pos)
        if kind != b"MSGF" or number not in self._waiting:
            return False
        connection = self._inner._connection
        own = connection.security_token
        limits = connection._limits
        body = pos + _FRAME.size
        if (
            channel != own.ChannelId
            or token != own.TokenId
            or connection._incoming_parts
            or sequence != (connection._peer_sequence_number or 0) + 1
            or size > limits.max_recv_buffer
            or (limits.max_message_size and size > limits.max_message_size)
            or self._room[body : body + 4] != _PUBLISH_RESPONSE
            or self._room[body + _RESULT] & _BAD
            or type(connection.security_policy.symmetric_cryptography) is not CryptographyNone
        ):
            self._waiting.pop(number, None)
            return False
        connection._peer_sequence_number = sequence
        answered = self._waiting.pop(number)
        future = self._inner._callbackmap.pop(number, None)
        if future is None or future.done():
            return True
        answer = bytes(self._view[body : pos + size])
        if answered is None:
            future.set_result(answer)
        elif (acknowledgements := answered(answer, future)) is None:
            future.set_result(b"")
        else:
            try:
                self._send(future, acknowledgements, answered)
            except ConnectionError as e:
                future.set_exception(e)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing comes any more."""
        self._waiting.clear()
        self._inner.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """The server has closed."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """The socket is full."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It is not."""
        self._inner.resume_writing()
