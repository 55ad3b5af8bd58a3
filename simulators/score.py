"""Findings, verdicts and stored readings against the ground truth.

Takes what a store answered as plain values, so that it can disagree with the agent about everything.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from simulators.truth import FaultLine, PartLine, Truth

GRACE_PARTS = 5  # parts after a repair during which a chart with memory may still raise its finding

Stored = Callable[[str], Mapping[str, Sequence[Any]]]


class ReadingScore(msgspec.Struct, frozen=True, kw_only=True):
    """Readings: sent, found in the store with the same time, value and status, and not found."""

    sent: int
    committed: int
    stored: int
    lost: int


class FaultScore(msgspec.Struct, frozen=True, kw_only=True):
    """Faults: injected, found (an alarm on an affected signal while it lasts), and alarms without a fault.

    `delay_parts`: parts finished from a fault's start to its first alarm, mean over those found; None if none was.
    """

    injected: int
    found: int
    false_alarms: int
    delay_parts: float | None


class PartScore(msgspec.Struct, frozen=True, kw_only=True):
    """Parts: made, truly bad, bad but passed, good but failed, and without any verdict."""

    made: int
    bad: int
    escaped: int
    overkill: int
    unjudged: int


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """How a run did against the truth."""

    readings: ReadingScore
    faults: FaultScore
    parts: PartScore


def score(
    truth: Truth,
    stored: Stored,
    findings: Sequence[Mapping[str, Any]],
    verdicts: Sequence[Mapping[str, Any]],
    *,
    committed: int,
) -> Score:
    """Compare a run with its truth.

    Args:
        truth: what was sent, made and broken.
        stored: `site/area/line/machine/signal` → columns `time` (ns), `value`, `status` of that signal in the store.
        findings: every finding, any revision of it. It was raised at the end of its `part`, which all revisions keep;
            the `time` (ns) of a revision is when its state changed, and counts only where no part is known.
        verdicts: the newest verdict of every part.
        committed: readings of the truth's signals that the journal took.
    """
    return Score(
        readings=_readings(truth, stored, committed),
        faults=_faults(truth, [f for f in findings if f.get("severity", "alarm") == "alarm"]),
        parts=_parts(truth, verdicts),
    )


def _readings(truth: Truth, stored: Stored, committed: int) -> ReadingScore:
    sent: dict[str, list[tuple[int, float | str | None, int]]] = {}
    for reading in truth.readings:
        sent.setdefault(f"{reading.place}/{reading.signal}", []).append((reading.ts, reading.value, reading.status))
    found = 0
    for path, expected in sent.items():
        columns = stored(path)
        kept = set(zip(columns["time"], columns["value"], columns["status"], strict=True))
        found += sum(reading in kept for reading in expected)
    return ReadingScore(sent=len(truth.readings), committed=committed, stored=found, lost=len(truth.readings) - found)


def _faults(truth: Truth, alarms: Sequence[Mapping[str, Any]]) -> FaultScore:
    parts: dict[str, list[PartLine]] = {}
    for part in truth.parts:
        parts.setdefault(part.place, []).append(part)
    made_at = {(part.place, part.id): part.end - 1 for part in truth.parts}
    raised = [made_at.get((_path(a["place"]), a.get("part", "")), a["time"]) for a in alarms]
    explained: set[int] = set()
    delays: list[int] = []
    for fault in truth.faults:
        made = parts.get(fault.place, [])
        end = _end_with_grace(fault, made)
        hits = [
            (i, raised[i])
            for i, alarm in enumerate(alarms)
            if _path(alarm["place"]) == fault.place
            and alarm["signal"] in fault.signals
            and fault.start <= raised[i] <= end
        ]
        explained.update(i for i, _ in hits)
        if hits:
            first = min(time for _, time in hits)
            delays.append(sum(fault.start <= part.start and part.end - 1 <= first for part in made))
    return FaultScore(
        injected=len(truth.faults),
        found=len(delays),
        false_alarms=len(alarms) - len(explained),
        delay_parts=sum(delays) / len(delays) if delays else None,
    )


def _end_with_grace(fault: FaultLine, made: Sequence[PartLine]) -> float:
    if fault.end is None:
        return float("inf")
    after = sorted(part.end for part in made if part.start >= fault.end)
    return after[GRACE_PARTS - 1] if len(after) >= GRACE_PARTS else float("inf")


def _parts(truth: Truth, verdicts: Sequence[Mapping[str, Any]]) -> PartScore:
    judged = {(_path(v["place"]), v["id"]): v.get("verdict", "pass") for v in verdicts}
    found = [(part.good, judged.get((part.place, part.id))) for part in truth.parts]
    return PartScore(
        made=len(found),
        bad=sum(not good for good, _ in found),
        escaped=sum(not good and verdict == "pass" for good, verdict in found),
        overkill=sum(good and verdict == "fail" for good, verdict in found),
        unjudged=sum(verdict is None for _, verdict in found),
    )


def _path(place: Mapping[str, str]) -> str:
    return f"{place['site']}/{place['area']}/{place['line']}/{place['machine']}"
