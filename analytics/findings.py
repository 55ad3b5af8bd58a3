"""The life of findings: raised once an excursion, revised, cleared (ISA-18.2)."""

from collections.abc import Iterator
from typing import Any

import msgspec

from fieldlab.model import Finding, FindingState

MOST_REMEMBERED = 10_000  # excursions of one machine since its part began

Key = tuple[str, str, str]  # machine path, signal, chart


class Excursion(msgspec.Struct):
    """When a finding was open: [start, end), end None while it is; it starts with the window that showed it."""

    finding: Finding
    start: int
    end: int | None = None


class FindingBook:
    """Open findings, and those lately cleared on machines that make parts (for the verdicts)."""

    def __init__(self) -> None:
        self._open: dict[Key, Finding] = {}
        self._lately: dict[str, list[Excursion]] = {}

    def raise_(self, finding: Finding, *, remember: bool, start: int | None = None) -> Finding:
        """Open a finding; `remember` keeps it for the verdicts of parts, from `start` on. Returns the row."""
        self._open[finding.place.path, finding.signal, finding.chart] = finding
        if remember:
            lately = self._lately.setdefault(finding.place.path, [])
            lately.append(Excursion(finding, finding.time if start is None else start))
            if len(lately) > MOST_REMEMBERED:  # a part that never ends
                lately.remove(next((e for e in lately if e.end is not None), lately[0]))
        return finding

    def find(self, key: Key) -> Finding | None:
        """The open finding of a machine, signal and chart."""
        return self._open.get(key)

    def clear(self, key: Key, time: int, detail: str) -> Finding | None:
        """Close a finding. Returns the row, or None if none is open."""
        finding = self._open.pop(key, None)
        if finding is None:
            return None
        for excursion in self._lately.get(key[0], ()):
            if excursion.finding.id == finding.id:
                excursion.end = time
        return msgspec.structs.replace(
            finding, time=time, state="cleared", revision=finding.revision + 1, detail=detail
        )

    def revise(self, finding_id: str, time: int, state: FindingState, words: str) -> Finding | None:
        """Acknowledge or shelve an open finding. Returns the row, or None if none with this id is open."""
        for key, finding in self._open.items():
            if finding.id == finding_id:
                row = msgspec.structs.replace(
                    finding, time=time, state=state, revision=finding.revision + 1, detail=words or finding.detail
                )
                self._open[key] = row
                return row
        return None

    def during(self, machine: str, start: int, end: int) -> Iterator[Finding]:
        """Alarms that were open at any time in [start, end), in order; warnings judge no part."""
        found = sorted(self._lately.get(machine, ()), key=lambda e: (e.finding.time, e.finding.chart, e.finding.signal))
        for e in found:
            known = e.finding.severity == "alarm" and e.finding.time <= end
            if known and e.start < end and (e.end is None or e.end > start):
                yield e.finding

    def forget(self, machine: str, before: int) -> None:
        """Drop what was cleared before: no later part can have seen it."""
        if machine in self._lately:
            self._lately[machine] = [e for e in self._lately[machine] if e.end is None or e.end > before]

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "open": [msgspec.to_builtins(f) for f in self._open.values()],
            "lately": [(m, [msgspec.to_builtins(e) for e in es]) for m, es in self._lately.items()],
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        found = [msgspec.convert(f, Finding) for f in saved["open"]]
        self._open = {(f.place.path, f.signal, f.chart): f for f in found}
        self._lately = {m: [msgspec.convert(e, Excursion) for e in es] for m, es in saved["lately"]}
