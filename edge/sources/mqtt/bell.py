"""Wakes a thread that waits for a socket, from any other thread."""

import contextlib
import select
import socket
from typing import Any


class Bell:
    """One thread waits, any thread rings. Ringing twice before the thread looks is ringing once."""

    def __init__(self) -> None:
        self._rung = False
        self._mouth, self._ear = socket.socketpair()
        self._mouth.setblocking(False)
        self._ear.setblocking(False)

    def ring(self) -> None:
        """Wake the waiting thread; after `close` it does nothing."""
        if not self._rung:
            self._rung = True
            with contextlib.suppress(OSError):
                self._mouth.send(b"\0")

    def wait(self, seconds: float, sock: Any = None, events: int = 0) -> int:
        """Wait for the bell, or for `events` (as in `select.poll`) on `sock`.

        Returns:
            The events of `sock`, errors included; 0 if there are none.
        """
        poll = select.poll()
        poll.register(self._ear, select.POLLIN)
        if sock is not None:
            poll.register(sock, events)
        ready = dict(poll.poll(seconds * 1000))
        if ready.pop(self._ear.fileno(), 0):
            with contextlib.suppress(OSError):
                self._ear.recv(4096)
            self._rung = False  # after the bytes are taken and before the work is looked at: no ring is missed
        return next(iter(ready.values()), 0)

    def close(self) -> None:
        """Release the sockets."""
        self._mouth.close()
        self._ear.close()
