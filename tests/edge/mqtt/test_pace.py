"""How long packets may gather: never longer than configured, and shorter while few come."""

import threading
import time

import pytest

from edge.sources.mqtt.bell import Bell
from edge.sources.mqtt.pace import Pace


def test_few_messages_wait_a_third_and_many_all_of_it() -> None:
    pace = Pace(0.006)
    assert pace.pause() == pytest.approx(0.002)
    pace.took(3)
    assert pace.pause() == pytest.approx(0.002)
    pace.took(32)
    assert pace.pause() == pytest.approx(0.004)
    pace.took(100_000)
    assert pace.pause() == pytest.approx(0.006), "the most that was configured"
    pace.took(0)
    assert pace.pause() == pytest.approx(0.002), "one pass, and it is short again"


def test_a_pass_of_a_broker_that_lets_20_through_stays_short() -> None:
    pace = Pace(0.006)
    pace.took(20)
    assert pace.pause() < 0.003


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
