"""Wakes a thread that waits for a socket, from any other thread."""

import contextlib
import select
import socket
from typing import Any


class Bell:
    """One thread waits, any thread rings. Ringing twice before the thread looks is ringing once."""

    def __init__(self) -> None:
        self._rung = False
        self._asleep = False  # whether it takes a byte to wake the thread
        self._mouth, self._ear = socket.socketpair()
        self._mouth.setblocking(False)
        self._ear.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._ear, select.POLLIN)
        self._beside: tuple[int, int] | None = None  # descriptor and events that are polled beside the bell

    def ring(self) -> None:
        """Wake the waiting thread; after `close` it does nothing."""
        self._rung = True  # before we look whether it sleeps, as it looks at this after it said that it will
        if self._asleep:
            self._asleep = False
            with contextlib.suppress(OSError):
                self._mouth.send(b"\0")

    def wait(self, seconds: float, sock: Any = None, events: int = 0) -> int:
        """Wait for the bell, or for `events` (as in `select.poll`) on `sock`.

        Returns:
            The events of `sock`, errors included; 0 if there are none.
        """
        beside = None if sock is None else (sock.fileno(), events)
        if beside != self._beside:
            if self._beside is not None and (beside is None or beside[0] != self._beside[0]):
                self._poll.unregister(self._beside[0])
            if beside is not None:
                self._poll.register(*beside)
            self._beside = beside
        self._asleep = True
        ready = dict(self._poll.poll(0 if self._rung else seconds * 1000))
        self._asleep = False
        if ready.pop(self._ear.fileno(), 0):
            with contextlib.suppress(OSError):
                self._ear.recv(4096)
        self._rung = False  # after the bytes are taken and before the work is looked at: no ring is missed
        return next(iter(ready.values()), 0)

    def close(self) -> None:
        """Release the sockets."""
        self._mouth.close()
        self._ear.close()
