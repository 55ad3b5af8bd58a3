"""Our STATE: how edge nodes learn whether their primary host is there (Sparkplug 3.0.0, 5.13 and 6.4.27; 2.2, 14)."""

import time
from collections.abc import Callable

import msgspec

from edge.sources.mqtt.sparkplug.naming import NAMESPACE
from edge.sources.mqtt.speaker import Message

_AGAIN = 1.0  # s between two answers to a STATE that says we are not there


class HostState:
    """Makes the messages of one host.

    Args:
        host_id: its name.
        form: `3.0` or `2.2`.
        clock: seconds, for the pace of repeats.
    """

    def __init__(self, host_id: str, form: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._three = form == "3.0"
        self.topic = f"{NAMESPACE}/STATE/{host_id}" if self._three else f"STATE/{host_id}"
        self._clock = clock
        self._time = 0  # ms: of the will, and so of the birth that belongs to it
        self._repeated = float("-inf")
        self._owed = False

    def will(self) -> Message:
        """What the broker says when it loses us; a new one for each connection."""
        self._time = max(time.time_ns() // 1_000_000, self._time + 1)
        return self._message(online=False, at=self._time)

    def birth(self) -> Message:
        """That we are there."""
        return self._message(online=True, at=self._time)

    def death(self) -> Message:
        """That we leave."""
        return self._message(online=False, at=time.time_ns() // 1_000_000)

    def heard(self, payload: bytes) -> None:
        """Take a message on our own topic: if it says that we are not there, a birth is `owed`."""
        try:
            offline = msgspec.json.decode(payload).get("online") is False if self._three else payload == b"OFFLINE"
        except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, RecursionError):
            return
        self._owed |= offline

    def owed(self) -> bool:
        """Whether our birth must be said again now; true once, and not more than once a second."""
        now = self._clock()
        if not self._owed or now - self._repeated < _AGAIN:
            return False
        self._repeated, self._owed = now, False
        return True

    def _message(self, *, online: bool, at: int) -> Message:
        if self._three:
            body = msgspec.json.encode({"online": online, "timestamp": at})
        else:
            body = b"ONLINE" if online else b"OFFLINE"
        return Message(self.topic, body, qos=1, retain=True)
