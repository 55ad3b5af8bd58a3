"""TLS over a socket that is read in large pieces.

Brokers send each packet as a TLS record of its own. OpenSSL on a socket asks the kernel twice for each record; here one
call takes all that has arrived, and the records are decrypted from memory.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

_PIECE = 1 << 18  # bytes asked of the kernel at once


class TlsSocket:
    """What paho and our loop need of a socket. Used by one thread.

    Args:
        sock: connected, with a timeout: the handshake takes at most that for each answer.
        context: how to verify.
        name: the name in the peer's certificate.

    Raises:
        OSError: the handshake fails; `ssl.SSLError` is one.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str) -> None:
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        # Without the wrapper in Python, which a record costs half as much again; a private name, so it may be gone.
        self._read: Any = getattr(getattr(self._tls, "_sslobj", None), "read", self._tls.read)
        self._unsent = memoryview(b"")
        self._handshake()

    def _handshake(self) -> None:
        try:
            while True:
                try:
                    self._tls.do_handshake()
                except ssl.SSLWantReadError:
                    self._sock.sendall(self._outgoing.read())
                    self._feed()
                else:
                    break
        finally:
            if self._outgoing.pending:
                self._sock.sendall(self._outgoing.read())  # the last word, or why we refuse

    @property
    def certificate(self) -> bytes | None:
        """The peer's certificate, in DER."""
        return self._tls.getpeercert(binary_form=True)

    def _feed(self) -> None:
        """Take what has arrived from the kernel."""
        data = self._sock.recv(_PIECE)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def recv_into(self, buffer: bytearray) -> int:
        """As in `socket.socket`, non-blocking, but everything that is here, up to the length of `buffer`.

        Raises:
            BlockingIOError: there is nothing.
            OSError: the connection is lost.
        """
        view = memoryview(buffer)
        size, filled = len(buffer), 0
        read: Callable[[int, memoryview], int] = self._read
        while filled < size:
            try:
                count = read(size - filled, view[filled:])
            except ssl.SSLWantReadError:
                if filled:
                    break
                self._feed()
            except ssl.SSLError:
                if filled:
                    break  # what came before it counts; the next call finds it again
                raise
            else:
                if count == 0:
                    break
                filled += count
        if self._outgoing.pending:
            with contextlib.suppress(OSError):  # what was read counts; a broken connection is found at the next call
                self.flush()
        return filled

    def recv(self, size: int) -> bytes:
        """As in `socket.socket`."""
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(buffer)])

    def send(self, data: bytes | bytearray) -> int:
        """As in `socket.socket`, non-blocking: all of `data` is taken, or nothing.

        Raises:
            BlockingIOError: what was taken before is not sent yet.
        """
        if self.flush():
            raise BlockingIOError
        self._tls.write(data)
        self.flush()
        return len(data)

    @property
    def unsent(self) -> bool:
        """Whether something that was taken is not sent yet."""
        return len(self._unsent) > 0 or self._outgoing.pending > 0

    def flush(self) -> bool:
        """Send what was taken; whether some is left."""
        while True:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
                if not self._unsent:
                    return False
            try:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            except BlockingIOError:
                return True

    def pending(self) -> int:
        """Bytes that the kernel does not know of any more."""
        return self._tls.pending() + self._incoming.pending

    def fileno(self) -> int:
        """As in `socket.socket`."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """As in `socket.socket`."""
        self._sock.setblocking(flag)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """As in `socket.socket`."""
        self._sock.setsockopt(level, option, value)

    def shutdown(self, how: int) -> None:
        """As in `socket.socket`."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Close the socket, without a word: the peer is to think that the connection is lost, or was told by MQTT."""
        self._sock.close()
