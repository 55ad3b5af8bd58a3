"""The score: what counts as lost, found, false, late and escaped."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from simulators.score import GRACE_PARTS, Score, score
from simulators.truth import DigestLine, FaultLine, PartLine, ReadingLine, Truth, hash_of

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
    readings = [ReadingLine(place=PLACE, signal="diameter", ts=(p.end - 10) * 1000, value=25.0) for p in parts]
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


def rows(*of: tuple[int, Any, int]) -> dict[str, list[Any]]:
    return {"time": [r[0] for r in of], "value": [r[1] for r in of], "status": [r[2] for r in of]}


def compared(sent: list[tuple[int, Any, int]], stored: list[tuple[int, Any, int]], **how: Any) -> tuple[int, ...]:
    lines = [ReadingLine(place=PLACE, signal="s", ts=ts, value=v, status=code, **how) for ts, v, code in sent]
    known = Truth(readings=lines, faults=[], parts=[])
    found = score(known, lambda _: rows(*stored), [], [], committed=0).readings
    return found.stored, found.lost, found.altered, found.duplicated


def test_lost_altered_and_duplicated_are_told_apart() -> None:
    sent = [(1_000, 1.0, 0), (2_000, 2.0, 0), (3_000, None, 0x80000000), (4_000, "a", 0)]
    assert compared(sent, sent) == (4, 0, 0, 0)
    assert compared(sent, sent[1:]) == (3, 1, 0, 0)
    assert compared(sent, [(1_000, 1.5, 0), *sent[1:]]) == (3, 1, 1, 0)
    assert compared(sent, [(1_000, 1.0, 0x40000000), *sent[1:]]) == (3, 1, 1, 0), "a status is part of a reading"
    assert compared(sent, [(3_000, 2.0, 0x80000000), *sent]) == (4, 0, 0, 0), "another row at that time is no harm"
    assert compared(sent, [(1_001, 1.0, 0), *sent]) == (4, 0, 0, 1), "moved by a nanosecond, it is there twice"
    assert compared(sent[:1], [(1_001, 1.0, 0)]) == (1, 0, 0, 0), "moved by a nanosecond, it is there"
    assert compared(sent[:1], [(2_000, 1.0, 0)]) == (0, 1, 0, 0), "at another microsecond it is not"


def test_readings_without_a_time_are_found_by_their_values() -> None:
    sent = [(1_000, 1.0, 0), (2_000, 1.0, 0), (3_000, 2.0, 0)]
    stored = [(9_000 + i, v, code) for i, (_, v, code) in enumerate(sent)]
    assert compared(sent, stored, arrival=True) == (3, 0, 0, 0)
    assert compared(sent, stored[1:], arrival=True) == (2, 1, 0, 0)


def test_minutes_are_compared_by_count_and_hash() -> None:
    minute = 60_000_000_000
    sent = [(minute + i * 1000, float(i), 0) for i in range(5)]
    digest = DigestLine(
        place=PLACE, signal="s", start=minute, end=2 * minute, count=5, hash=sum(hash_of(*r) for r in sent) % 2**64
    )

    def found(stored: list[tuple[int, Any, int]]) -> tuple[int, ...]:
        known = Truth(readings=[], faults=[], parts=[], digests=[digest])
        r = score(known, lambda _: rows(*stored), [], [], committed=0).readings
        return r.sent, r.stored, r.lost, r.altered, r.duplicated

    assert found(sent) == (5, 5, 0, 0, 0)
    assert found([*sent, (minute + 9, None, 0x80310000)]) == (5, 5, 0, 0, 0), "the word on a loss is the agent's own"
    assert found(sent[1:]) == (5, 4, 1, 0, 0)
    assert found([*sent[1:], (minute, 0.5, 0)]) == (5, 5, 0, 1, 0)
    assert found([*sent, (minute + 1, 0.0, 0)]) == (5, 5, 0, 0, 1)


def test_the_cause_is_the_signal_whose_alarm_came_first() -> None:
    faults = scored([finding("p5"), finding("p6", signal="noise")]).faults
    assert (faults.found, faults.top1, faults.top3, faults.missed) == (1, 1, 1, 0)
    assert faults.delay_seconds is not None
    faults = scored([finding("p6"), finding("p5", signal="noise")]).faults
    assert (faults.found, faults.top1, faults.top3) == (1, 0, 1)
    before = [finding("p5", signal=s) for s in ("a", "b", "c")]
    faults = scored([finding("p6"), *before]).faults
    assert (faults.found, faults.top1, faults.top3) == (1, 0, 0)
    words = "T2 of 3 signals is 14.2, above its limit 11.3; noise 62 %; diameter 20 %"
    faults = scored([{**finding("p5", signal="_all"), "detail": words}]).faults
    assert (faults.found, faults.false_alarms, faults.top1, faults.top3) == (1, 0, 1, 1)


def test_a_fault_may_be_found_further_on_the_line_and_hidden_ones_do_not_count() -> None:
    known = truth()
    after = {**PLACE_TAGS, "machine": "m-2"}
    fault = msgspec.structs.replace(FAULT, downstream={"site/area/line/m-2": ("current",)})
    hidden = msgspec.structs.replace(FAULT, id="g", signals=())
    known = Truth(readings=[], faults=[fault, hidden], parts=known.parts)
    alarm = {"place": after, "signal": "current", "part": "", "time": 650}
    faults = score(known, lambda _: rows(), [alarm], [], committed=0).faults
    assert (faults.injected, faults.found, faults.hidden, faults.false_alarms) == (1, 1, 1, 0)
    assert (faults.top1, faults.top3) == (0, 0), "where it is felt is not where it comes from"


def test_parts_without_an_id_are_paired_in_order() -> None:
    verdicts = {f"file-{n:02d}": "fail" if n == 6 else "pass" for n in range(1, 21)}
    rows_ = [{"place": PLACE_TAGS, "id": i, "verdict": v, "time": n} for n, (i, v) in enumerate(verdicts.items())]
    parts = score(truth(), lambda _: rows(), [], rows_, committed=0).parts
    assert (parts.made, parts.bad, parts.escaped, parts.unjudged) == (20, 1, 0, 0)
