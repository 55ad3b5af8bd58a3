"""Acknowledgements leave in the order of arrival, and never on another connection."""

from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sources.mqtt.pending import Pending


def puback(mid: int) -> bytes:
    return bytes([0x40, 2, 0, mid])


steady = settings(deadline=None)  # a slow machine is no fault


@steady
@given(st.permutations(range(8)), st.integers(0, 8))
def test_order_whatever_is_done_first(order: Any, done: Any) -> None:
    rung = []
    pending = Pending(lambda: rung.append(1))
    futures: list[Future[None]] = [Future() for _ in order]
    for i, future in enumerate(futures):
        pending.add([future], puback(i), 1, 1, 10)
    for i in order[:done]:
        futures[i].set_result(None)
    ready, error = pending.release(1)
    first_open = min(order[done:], default=8)
    assert ready == b"".join(map(puback, range(first_open)))
    assert error is None
    assert (pending.messages, pending.octets) == (8 - first_open, 10 * (8 - first_open))
    assert len(rung) == done


def test_every_future_of_a_pass_counts() -> None:
    pending = Pending(lambda: None)
    first: Future[None] = Future()
    second: Future[None] = Future()
    pending.add([first, second], puback(1) + puback(2), 1, 2, 0)
    first.set_result(None)
    assert pending.release(1) == (b"", None)
    second.set_result(None)
    assert pending.release(1) == (puback(1) + puback(2), None)


def test_another_connection_gets_no_acknowledgement() -> None:
    pending = Pending(lambda: None)
    done: Future[None] = Future()
    done.set_result(None)
    pending.add([done], puback(1), 1, 1, 0)
    pending.add([done], puback(1), 2, 1, 0)
    assert pending.release(2) == (puback(1), None)
    assert pending.dropped == 1


@pytest.mark.parametrize("cancel", [True, False])
def test_a_failure_stops_there(cancel: Any) -> None:
    pending = Pending(lambda: None)
    good: Future[None] = Future()
    good.set_result(None)
    bad: Future[None] = Future()
    bad.cancel() if cancel else bad.set_exception(OSError("full"))
    pending.add([good], puback(1), 1, 1, 0)
    pending.add([bad], puback(2), 1, 1, 0)
    pending.add([good], puback(3), 1, 1, 0)
    ready, error = pending.release(1)
    assert ready == puback(1)
    assert error is not None
    assert pending.release(2) == (b"", None)
    assert pending.dropped == 2


def test_nothing_to_keep_is_done_at_once() -> None:
    pending = Pending(lambda: None)
    pending.add([], puback(9), 1, 1, 0)
    assert pending.release(1) == (puback(9), None)
