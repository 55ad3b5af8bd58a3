"""OEE against examples worked out by hand; what is not known is never production."""

import pytest

from analytics.oee import Category, oee

SECOND = 10**9
MINUTE = 60 * SECOND
MEANS: dict[str, Category] = {"running": "running", "idle": "idle", "down": "down", "lunch": "break"}


def test_the_example_of_every_textbook() -> None:
    """Vorne Industries, oee.com, "Calculating OEE": 480 min, 60 of them breaks, 47 down; 1 s a part, 19,271 made.

    By hand: 373 / 420 = 88.81 %; 19271 / 60 / 373 = 86.11 %; 18848 / 19271 = 97.80 %; together 74.79 %.
    """
    states = [(0, "running"), (200 * MINUTE, "lunch"), (260 * MINUTE, "down"), (307 * MINUTE, "running")]
    found = oee(states, [(0, 480 * MINUTE)], MEANS, parts=19_271, good=19_271 - 423, cycle=1.0)
    assert (found.planned, found.running, found.breaks, found.down) == (420 * 60, 373 * 60, 3600, 47 * 60)
    assert found.availability == pytest.approx(0.8881, abs=5e-5)
    assert found.performance == pytest.approx(0.8611, abs=5e-5)
    assert found.quality == pytest.approx(0.9780, abs=5e-5)
    assert found.oee == pytest.approx(0.7479, abs=5e-5)
    assert found.least == found.most == pytest.approx(found.oee)
    assert (found.failures, found.mtbf, found.mttr) == (1, 373 * 60, 47 * 60)
    assert [(s.reason, s.category) for s in found.stops] == [("lunch", "break"), ("down", "down")]


def test_two_shifts_by_hand() -> None:
    """10:00 to 11:00 and 12:00 to 13:00 are planned: of 120 min, 30 + 10 + 40 run, 30 are down, 10 idle.

    10:00 running, 10:30 down (the motor, then from 10:45 the belt), 11:00 running, 12:10 idle, 12:20 running.
    """

    def at(minutes: int) -> int:
        return minutes * MINUTE

    states = [(at(0), "running"), (at(30), "down"), (at(60), "running"), (at(130), "Idle "), (at(140), "running")]
    reasons = [(at(31), "motor"), (at(45), "belt"), (at(60), "")]
    shifts = [(at(0), at(60)), (at(120), at(180))]
    found = oee(states, shifts, MEANS, parts=40, good=30, cycle=90.0, reasons=reasons)
    assert (found.running / 60, found.down / 60, found.idle / 60, found.no_data) == (80, 30, 10, 0)
    assert found.availability == pytest.approx(80 / 120)
    assert found.performance == pytest.approx(40 * 90 / 4800)
    assert found.oee == pytest.approx(30 * 90 / 7200)
    assert (found.failures, found.mtbf, found.mttr) == (1, 4800.0, 1800.0)
    assert [tuple(stop) for stop in found.stops] == [
        ("belt", "down", 1, 900.0), ("motor", "down", 1, 900.0), ("Idle ", "idle", 1, 600.0)
    ]  # fmt: skip


def test_what_is_not_known_is_no_data_and_never_production() -> None:
    states = [(10 * MINUTE, "running"), (20 * MINUTE, None), (30 * MINUTE, "dancing"), (45 * MINUTE, "running")]
    found = oee(states, [(0, 60 * MINUTE)], MEANS, parts=20, good=20, cycle=60.0)
    assert found.no_data == 35 * 60
    assert found.unknown == {"dancing": 900.0}
    assert (found.planned, found.running) == (25 * 60, 25 * 60)
    assert found.availability == 1.0
    assert found.oee == pytest.approx(20 / 25)
    assert found.least == pytest.approx(20 / 60)
    assert found.most == pytest.approx(55 / 60)
    assert found.stops == []


def test_what_cannot_be_said_is_not_said() -> None:
    nothing = oee([], [(0, 60 * MINUTE)], MEANS, parts=0, good=0, cycle=1.0)
    assert (nothing.availability, nothing.performance, nothing.quality, nothing.oee, nothing.mtbf) == (None,) * 5
    assert nothing.no_data == 3600
    unplanned = oee([(0, "running")], [], MEANS, parts=5, good=5, cycle=None)
    assert (unplanned.planned, unplanned.oee) == (0, None)


def test_coming_back_from_no_data_into_a_failure_is_a_failure_once() -> None:
    states = [(0, "down"), (MINUTE, None), (2 * MINUTE, "down"), (3 * MINUTE, "down"), (4 * MINUTE, "running")]
    found = oee(states, [(0, 5 * MINUTE)], MEANS, parts=0, good=0, cycle=None)
    assert found.failures == 2
    assert found.down == 180
