"""The bell wakes a thread that waits, however the ring and the wait fall together."""

import threading
import time

from edge.sources.mqtt.bell import Bell


def test_no_ring_is_missed() -> None:
    """A ring before the wait, during it, and after it each ends exactly one wait."""
    bell = Bell()
    bell.ring()
    began = time.monotonic()
    bell.wait(10.0)
    ringer = threading.Thread(target=bell.ring)
    ringer.start()
    bell.wait(10.0)
    ringer.join()
    bell.wait(0.0)
    assert time.monotonic() - began < 5.0
    rung = 0
    done = threading.Event()

    def work() -> None:
        for _ in range(2000):
            bell.ring()
        done.set()
        bell.ring()

    ringer = threading.Thread(target=work)
    ringer.start()
    while not done.is_set():
        bell.wait(5.0)
        rung += 1
    ringer.join()
    assert rung <= 2001
    assert time.monotonic() - began < 10.0, "no wait took its whole time"
    bell.close()
    bell.ring()
