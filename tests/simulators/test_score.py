"""The score: what counts as lost, found, false, late and escaped."""

from collections.abc import Mapping, Sequence
from typing import Any

from simulators.score import GRACE_PARTS, Score, score
from simulators.truth import FaultLine, PartLine, ReadingLine, Truth

PLACE = "site/area/line/m-1"
PLACE_TAGS = {"site": "site", "area": "area", "line": "line", "machine": "m-1"}
FAULT = FaultLine(
    id="f",
    place=PLACE,
    signals=("diameter",),
    kind="tool_wear",
    start=400,
    end=700,
    first_part="p5",
    severity=1.0,
)


def truth() -> Truth:
    """Parts 1 to 20 of 100 ns each; the fault lasts from part 5 to 7, and part 6 is bad."""
    parts = [
        PartLine(
            place=PLACE,
            id=f"p{n}",
            start=100 * (n - 1),
            end=100 * n,
            good=n != 6,
            why="",
            dimensions={},
        )
        for n in range(1, 21)
    ]
    readings = [ReadingLine(place=PLACE, signal="diameter", ts=p.end - 10, value=25.0) for p in parts]
    return Truth(readings=readings, faults=[FAULT], parts=parts)


def finding(part: str, *, signal: str = "diameter", time: int = 1990, severity: str = "alarm") -> dict[str, Any]:
    return {"place": PLACE_TAGS, "signal": signal, "part": part, "time": time, "severity": severity}


def scored(
    findings: Sequence[Mapping[str, Any]] = (), verdicts: Mapping[str, str] | None = None, skip: int = 0
) -> Score:
    known = truth()
    kept = known.readings[skip:]
    columns: dict[str, list[Any]] = {
        "time": [r.ts for r in kept],
        "value": [r.value for r in kept],
        "status": [0] * len(kept),
    }
    given = {p.id: "pass" for p in known.parts} if verdicts is None else verdicts
    rows = [{"place": PLACE_TAGS, "id": part, "verdict": verdict} for part, verdict in given.items()]
    return score(known, lambda _: columns, findings, rows, committed=20)


def test_readings_that_are_not_in_the_store_are_lost() -> None:
    assert (scored().readings.sent, scored().readings.lost) == (20, 0)
    assert (scored(skip=3).readings.stored, scored(skip=3).readings.lost) == (17, 3)


def test_a_finding_counts_when_it_was_raised_not_when_it_was_cleared() -> None:
    faults = scored([finding("p6", time=1990)]).faults
    assert (faults.found, faults.false_alarms, faults.delay_parts) == (1, 0, 2.0)
    assert scored([finding("p5")]).faults.delay_parts == 1.0
    assert scored([finding("", time=650)]).faults.delay_parts == 2.0, "without a part, its own time counts"


def test_the_last_part_before_a_fault_does_not_find_it() -> None:
    faults = scored([finding("p4")]).faults
    assert (faults.found, faults.false_alarms, faults.delay_parts) == (0, 1, None)


def test_a_chart_with_memory_has_some_grace_after_the_repair() -> None:
    assert scored([finding(f"p{7 + GRACE_PARTS}")]).faults.false_alarms == 0
    assert scored([finding(f"p{8 + GRACE_PARTS}")]).faults.false_alarms == 1


def test_another_signal_is_a_false_alarm_and_a_warning_is_none() -> None:
    faults = scored([finding("p6", signal="vibration"), finding("p2", severity="warning")]).faults
    assert (faults.found, faults.false_alarms) == (0, 1)


def test_parts_escape_are_killed_too_much_or_are_not_judged() -> None:
    parts = scored(verdicts={f"p{n}": "pass" for n in range(1, 20)}).parts
    assert (parts.made, parts.bad, parts.escaped, parts.overkill, parts.unjudged) == (20, 1, 1, 0, 1)
    parts = scored(verdicts={f"p{n}": "fail" if n in (6, 7) else "suspect" for n in range(1, 21)}).parts
    assert (parts.escaped, parts.overkill, parts.unjudged) == (0, 1, 0)
