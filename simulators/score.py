"""Findings, verdicts and stored readings against the ground truth.

Takes what a store answered as plain values, so that it can disagree with the agent about everything.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from simulators.truth import WINDOW, DigestLine, FaultLine, PartLine, ReadingLine, Truth, hash_of

GRACE_PARTS = 5  # parts after a repair during which a chart with memory may still raise its finding
_NO_COMMUNICATION = 0x80310000  # what an agent writes when it loses a machine; no machine sent it
_NAMED = 3  # signals that a person is pointed to
_WORD = re.compile(r"[A-Za-z_][\w.\[\]]*(?= \d+ %)")  # of "vibration 62 %; spindle_load 20 %"

Stored = Callable[[str], Mapping[str, Sequence[Any]]]


class ReadingScore(msgspec.Struct, frozen=True, kw_only=True):
    """Readings, as the store has them.

    Attributes:
        sent: by the machines.
        committed: by the journal.
        stored: found in the store with the same time, value and status.
        lost: sent and not found so.
        altered: of those lost, the ones whose time is there with another value or status. Where the truth has only
            digests, the minutes whose count is right and whose hash is not.
        duplicated: rows of the store beyond those that were sent, with the time, value and status of one that was.
    """

    sent: int
    committed: int
    stored: int
    lost: int
    altered: int = 0
    duplicated: int = 0


class FaultScore(msgspec.Struct, frozen=True, kw_only=True):
    """Faults, as findings tell them.

    Attributes:
        injected: those that a signal that is sent can show.
        found: with an alarm on an affected signal, of the machine or of one further on the line, while it lasts.
        missed: injected and not found.
        hidden: others, which no signal of the machine's dialect shows.
        false_alarms: alarms without a fault.
        delay_parts: parts finished from a fault's start to its first alarm, mean over those found; None if none was.
        delay_seconds: from a fault's start to the end of the part of its first alarm, in the same way.
        top1: of those found, the faults whose first alarm is on a signal of the machine that the fault itself moves.
        top3: the same for one of the first three signals with an alarm.
    """

    injected: int
    found: int
    false_alarms: int
    delay_parts: float | None
    missed: int = 0
    hidden: int = 0
    delay_seconds: float | None = None
    top1: int = 0
    top3: int = 0


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
    sent: dict[str, list[ReadingLine]] = {}
    for reading in truth.readings:
        sent.setdefault(f"{reading.place}/{reading.signal}", []).append(reading)
    digests: dict[str, list[DigestLine]] = {}
    for digest in truth.digests:
        digests.setdefault(f"{digest.place}/{digest.signal}", []).append(digest)
    tally: Counter[str] = Counter()
    for path, expected in sent.items():
        tally.update(_compare(expected, stored(path)))
    for path, counted in digests.items():
        tally.update(_compare_digests(counted, stored(path)))
    total = len(truth.readings) + sum(d.count for d in truth.digests)
    return ReadingScore(
        sent=total,
        committed=committed,
        stored=tally["found"],
        lost=total - tally["found"],
        altered=tally["altered"],
        duplicated=tally["duplicated"],
    )


def _compare(expected: Sequence[ReadingLine], columns: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    """Readings of one signal against its rows. Times are compared to the microsecond.

    An agent moves a reading by nanoseconds where two would share a time; machines tell whole microseconds.
    """
    at: dict[int, list[tuple[Any, int]]] = {}
    anywhere: Counter[tuple[Any, int]] = Counter()
    for ts, value, status in zip(columns["time"], columns["value"], columns["status"], strict=True):
        at.setdefault(ts // 1000, []).append((value, status))
        anywhere[value, status] += 1
    found = altered = duplicated = 0
    told: dict[int, Counter[tuple[Any, int]]] = {}
    for line in expected:
        key = (line.value, line.status)
        if line.arrival is True:  # its time is the reader's
            hit = anywhere[key] > 0
            anywhere[key] -= hit
            found += hit
            continue
        rows = at.get(line.ts // 1000, [])
        told.setdefault(line.ts // 1000, Counter())[key] += 1
        found += key in rows
        altered += bool(rows) and key not in rows
    for when, keys in told.items():
        rows = at.get(when, [])
        duplicated += sum(max(0, rows.count(key) - count) for key, count in keys.items())
    return {"found": found, "altered": altered, "duplicated": duplicated}


def _compare_digests(expected: Sequence[DigestLine], columns: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    """Minutes of one signal against its rows: the counts, and the sums of hashes."""
    wanted: dict[int, list[int]] = {}
    for line in expected:
        minute = wanted.setdefault(line.start, [0, 0])
        minute[0] += line.count
        minute[1] = (minute[1] + line.hash) % 2**64
    have: dict[int, list[int]] = {start: [0, 0] for start in wanted}
    for ts, value, status in zip(columns["time"], columns["value"], columns["status"], strict=True):
        start = ts - ts % WINDOW
        if start in have and status != _NO_COMMUNICATION:
            have[start][0] += 1
            have[start][1] = (have[start][1] + hash_of(ts, value, status)) % 2**64
    found = altered = duplicated = 0
    for start, (count, total) in wanted.items():
        found += min(count, have[start][0])
        duplicated += max(0, have[start][0] - count)
        altered += have[start][0] == count and have[start][1] != total
    return {"found": found, "altered": altered, "duplicated": duplicated}


def _faults(truth: Truth, alarms: Sequence[Mapping[str, Any]]) -> FaultScore:
    parts: dict[str, list[PartLine]] = {}
    for part in truth.parts:
        parts.setdefault(part.place, []).append(part)
    made_at = {(part.place, part.id): part.end - 1 for part in truth.parts}
    raised = [made_at.get((_path(a["place"]), a.get("part", "")), a["time"]) for a in alarms]
    explained: set[int] = set()
    delays: list[tuple[int, float]] = []
    ranks: list[int | None] = []
    visible = [fault for fault in truth.faults if fault.signals]
    for fault in visible:
        felt = {fault.place: fault.signals, **(fault.downstream or {})}
        hits = []
        for i, alarm in enumerate(alarms):
            place = _path(alarm["place"])
            if place in felt and (alarm["signal"] == "_all" or alarm["signal"] in felt[place]):
                end = _end_with_grace(fault, parts.get(place, []))
                if fault.start <= raised[i] <= end:
                    hits.append(i)
        explained.update(hits)
        if hits:
            first = min(raised[i] for i in hits)
            made = parts.get(fault.place, [])
            late = sum(fault.start <= part.start and part.end - 1 <= first for part in made)
            delays.append((late, (first - fault.start) / 1e9))
            ranks.append(_rank(fault, alarms, raised, parts))
    return FaultScore(
        injected=len(visible),
        found=len(delays),
        false_alarms=len(alarms) - len(explained),
        delay_parts=sum(d for d, _ in delays) / len(delays) if delays else None,
        missed=len(visible) - len(delays),
        hidden=len(truth.faults) - len(visible),
        delay_seconds=sum(s for _, s in delays) / len(delays) if delays else None,
        top1=sum(rank == 1 for rank in ranks),
        top3=sum(rank is not None and rank <= _NAMED for rank in ranks),
    )


def _rank(
    fault: FaultLine,
    alarms: Sequence[Mapping[str, Any]],
    raised: Sequence[int],
    parts: Mapping[str, Sequence[PartLine]],
) -> int | None:
    """The place of the true cause among the signals with alarms while a fault lasts, in the order of their first alarm.

    Signals whose first alarm came with the same part share a place. A multivariate finding stands for the signals that
    its words name, in their order.
    """
    places = {fault.place, *(fault.downstream or {})}
    first: dict[tuple[str, str], int] = {}
    for i, alarm in enumerate(alarms):
        place = _path(alarm["place"])
        if place in places and fault.start <= raised[i] <= _end_with_grace(fault, parts.get(place, [])):
            for signal in _named(alarm):
                first[place, signal] = min(raised[i], first.get((place, signal), raised[i]))
    own = [at for (place, signal), at in first.items() if place == fault.place and signal in fault.signals]
    return 1 + sum(at < min(own) for at in first.values()) if own else None


def _named(alarm: Mapping[str, Any]) -> list[str]:
    if alarm["signal"] != "_all":
        return [alarm["signal"]]
    found: list[str] = _WORD.findall(alarm.get("detail", ""))
    return found[:_NAMED]


def _end_with_grace(fault: FaultLine, made: Sequence[PartLine]) -> float:
    if fault.end is None:
        return float("inf")
    after = sorted(part.end for part in made if part.start >= fault.end)
    return after[GRACE_PARTS - 1] if len(after) >= GRACE_PARTS else float("inf")


def _parts(truth: Truth, verdicts: Sequence[Mapping[str, Any]]) -> PartScore:
    judged = {(_path(v["place"]), v["id"]): v.get("verdict", "pass") for v in verdicts}
    known = {(part.place, part.id) for part in truth.parts}
    strange = {place for place, _ in judged} - {place for place, _ in judged.keys() & known}
    judged.update(_in_order(truth, verdicts, strange))
    found = [(part.good, judged.get((part.place, part.id))) for part in truth.parts]
    return PartScore(
        made=len(found),
        bad=sum(not good for good, _ in found),
        escaped=sum(not good and verdict == "pass" for good, verdict in found),
        overkill=sum(good and verdict == "fail" for good, verdict in found),
        unjudged=sum(verdict is None for _, verdict in found),
    )


def _in_order(
    truth: Truth, verdicts: Sequence[Mapping[str, Any]], places: Collection[str]
) -> dict[tuple[str, str], str]:
    """Verdicts of machines whose dialect cannot tell a part's id: the n-th is of the n-th part."""
    paired = {}
    for place in places:
        made = sorted((p for p in truth.parts if p.place == place), key=lambda p: p.start)
        told = sorted((v for v in verdicts if _path(v["place"]) == place), key=lambda v: v.get("time", 0))
        paired.update({(place, part.id): v.get("verdict", "pass") for part, v in zip(made, told, strict=False)})
    return paired


def _path(place: Mapping[str, str]) -> str:
    return f"{place['site']}/{place['area']}/{place['line']}/{place['machine']}"
