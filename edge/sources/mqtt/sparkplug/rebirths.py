"""Requests for birth certificates: few, however much goes wrong."""

import time
from collections.abc import Callable

from edge.sources.mqtt.sparkplug.naming import NAMESPACE
from edge.sources.mqtt.speaker import Message
from fieldlab.sparkplug import payload as p
from fieldlab.sparkplug.datatypes import BOOLEAN
from fieldlab.sparkplug.encode import encode
from fieldlab.sparkplug.payload import Metric, Payload, Value

FIRST, LONGEST = 5.0, 300.0  # s between two requests to one edge node: at first, and at most
RATE = 10.0  # requests a second to all of them
_BURST = 20.0


def request(at: int) -> bytes:
    """The payload of a request: `Node Control/Rebirth` = true, at `at` (ms)."""
    metric = Metric("Node Control/Rebirth", None, at, BOOLEAN, False, False, False, Value(p.BOOLEAN, True), {})
    return encode(Payload(at, None, (metric,), b""))


class Rebirths:
    """Who must be asked, and when.

    An edge node is asked at once, then after 5 s, 10 s, … up to 5 min, until its birth comes; also when births come and
    something is wrong again at once. All together are asked at most 10 times a second.

    Attributes:
        asked: requests so far.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.asked = 0
        self._clock = clock
        self._wanted: dict[tuple[str, str], None] = {}
        self._last: dict[tuple[str, str], tuple[float, float]] = {}  # when, and the pause after it
        self._tokens, self._filled = _BURST, clock()

    def ask(self, node: tuple[str, str]) -> None:
        """Want the births of `node` (group, node)."""
        self._wanted[node] = None

    def born(self, node: tuple[str, str]) -> None:
        """They came."""
        self._wanted.pop(node, None)

    def due(self) -> list[Message]:
        """The requests to send now."""
        if not self._wanted:
            return []
        now = self._clock()
        self._tokens = min(_BURST, self._tokens + (now - self._filled) * RATE)
        self._filled = now
        found: list[Message] = []
        for node in self._wanted:
            if self._tokens < 1:
                break
            when, pause = self._last.get(node, (float("-inf"), 0.0))
            if now - when < pause:
                continue
            calm = now - when > 2 * max(pause, FIRST)
            self._last[node] = (now, FIRST if calm else min(LONGEST, max(FIRST, 2 * pause)))
            self._tokens -= 1
            self.asked += 1
            found.append(Message(f"{NAMESPACE}/{node[0]}/NCMD/{node[1]}", request(time.time_ns() // 1_000_000)))
        return found
