"""Follows the parts of every machine: part events, features into charts, verdicts, and the `part-id` health check."""

from collections.abc import Callable

import msgspec
import numpy as np

from analytics.config import PartConfig
from analytics.findings import FindingBook
from analytics.items import charted
from analytics.parts import Part, PartTracker, slots_of, text_at
from analytics.runner import ChartRunner
from analytics.slices import segment
from analytics.vectors import VectorRunner
from analytics.verdicts import Characteristic, judge
from fieldlab.model import Batch, Finding, PartEvent, SignalInfo, SignalKey, Verdict
from fieldlab.model.finding import finding_id
from fieldlab.model.record import Row
from fieldlab.model.status import is_good

PART_ID = "part-id"  # chart and rule of the health finding
MOST_REASONS = 10
_IN_UNIT = ("mean", "last", "min", "max")  # features that a specification limit can judge


class PartTaker(msgspec.Struct):
    """A chart that takes one value a part of one signal."""

    runner: ChartRunner
    channel: int
    signal: int
    key: SignalKey


class PartFlow:
    """The parts of all machines, by machine number."""

    def __init__(
        self,
        book: FindingBook,
        emit: Callable[[SignalKey, int, Row], None],
        info: Callable[[SignalKey], SignalInfo],
    ) -> None:
        self.trackers: dict[int, PartTracker] = {}
        self.takers: dict[int, list[PartTaker]] = {}
        self.charts: dict[
            int, list[tuple[ChartRunner | VectorRunner, int]]
        ] = {}  # every chart of a machine, for limits_versions
        self.companions: dict[tuple[int, str], int] = {}  # (machine, chart) → slot of what says size or recipe
        self._keys: dict[int, dict[int, SignalKey]] = {}  # machine → signal index → key, for signals with a slot
        self._watched: dict[int, int] = {}  # machine → index of the signal that tells parts apart
        self._riding: dict[int, dict[int, SignalKey]] = {}
        self._started: dict[int, list[Part]] = {}
        self._book, self._emit, self._info = book, emit, info

    def unwire(self) -> None:
        """Forget which signal feeds what; trackers stay."""
        self.takers, self.charts, self._keys, self._watched, self._riding = {}, {}, {}, {}, {}
        self.companions = {}

    def wire(self, m: int, config: PartConfig, index: int, key: SignalKey, info: SignalInfo) -> None:
        """Take note of a signal of a machine that makes parts."""
        tracker = self.trackers.get(m)
        if tracker is None:
            tracker = self.trackers[m] = PartTracker(config, key.place)
        if key.name == config.signal:
            self._watched[m] = index
        if key.name in config.genealogy:
            self._riding.setdefault(m, {})[index] = key
        if info.lsl is not None or info.usl is not None:
            tracker.slot(index)
        self._keys.setdefault(m, {})[index] = key

    def drop(self, m: int, time: int) -> None:
        """Forget a machine's parts, because they are told apart otherwise now."""
        tracker = self.trackers.pop(m)
        self._calm(tracker, time, "parts are told apart otherwise now")

    def cut(self, m: int, rows: Batch) -> None:
        """Find the parts that start in these readings; `run` enters them."""
        tracker = self.trackers[m]
        info = self._info(SignalKey(tracker.place, tracker.config.signal))
        self._started[m] = tracker.cut(rows, self._watched.get(m, -1), info)

    def run(self, m: int, rows: Batch) -> None:
        """Go through the readings of a machine: sums, part starts and ends, verdicts."""
        tracker = self.trackers[m]
        started = self._started.pop(m, [])
        if tracker.since is None:
            tracker.since = int(rows.time[0])
        slot_of = slots_of(tracker.slots, 1 + max(int(rows.signal.max()), max(tracker.slots, default=-1)))
        at = ridden = 0
        for part in started:
            stop, after = (int(np.searchsorted(rows.time, part.start, side)) for side in ("left", "right"))
            self._ride(m, rows, ridden, stop)
            self._sum(tracker, slot_of, rows, at, stop)
            self._check_length(tracker, part.start)
            self._finish(m, tracker, part.start)
            tracker.part = part
            self._ride(m, rows, stop, after, silent=True)
            self._begin(tracker, part)
            at, ridden = stop, after
        self._ride(m, rows, ridden, len(rows))
        self._sum(tracker, slot_of, rows, at, len(rows))
        self._check_length(tracker, int(rows.time[-1]))

    def _sum(self, tracker: PartTracker, slot_of: np.ndarray, rows: Batch, start: int, stop: int) -> None:
        slot = slot_of[rows.signal[start:stop]]
        use = np.flatnonzero(slot >= 0)
        tracker.accumulator.add(
            slot[use], rows.time[start:stop][use], rows.value[start:stop][use], rows.status[start:stop][use]
        )

    def _ride(self, m: int, rows: Batch, start: int, stop: int, *, silent: bool = False) -> None:
        """Follow tool, lot and whatever else rides along."""
        riding = self._riding.get(m)
        if not riding or start >= stop:
            return
        tracker, piece = self.trackers[m], segment(rows, start, stop)
        for row in np.flatnonzero(np.isin(piece.signal, list(riding)) & is_good(piece.status)).tolist():
            key = riding[int(piece.signal[row])]
            text = text_at(piece, row, self._info(key))
            if not text or text == tracker.riding.get(key.name):
                continue
            tracker.riding[key.name] = text
            if tracker.part is not None and tracker.part.id and not silent:
                self._consume(tracker, tracker.part, int(piece.time[row]), key.name, text)

    def _begin(self, tracker: PartTracker, part: Part) -> None:
        tracker.since, tracker.warned = part.start, False
        self._calm(tracker, part.start, f"{tracker.config.signal} changed")
        if not part.id:
            return
        text = "" if part.complete else "its start was not seen"
        self._event(tracker, PartEvent(time=part.start, place=tracker.place, event="start", id=part.id, text=text))
        for name in tracker.config.genealogy:
            if name in tracker.riding:
                self._consume(tracker, part, part.start, name, tracker.riding[name])

    def _consume(self, tracker: PartTracker, part: Part, time: int, name: str, value: str) -> None:
        seen = part.genealogy.setdefault(name, [])
        if value not in seen:
            seen.append(value)
        event = PartEvent(time=time, place=tracker.place, event="consume", id=part.id, other=value, text=name)
        self._event(tracker, event)

    def _finish(self, m: int, tracker: PartTracker, end: int) -> None:
        part = tracker.part
        if part is not None and part.id:
            self._event(tracker, PartEvent(time=end, place=tracker.place, event="end", id=part.id))
            self._verdict(m, tracker, part, end)
        self._book.forget(tracker.place.path, end)
        tracker.accumulator.reset()

    def _verdict(self, m: int, tracker: PartTracker, part: Part, end: int) -> None:
        features: dict[str, float] = {}
        own: dict[tuple[str, str], str] = {}  # (chart, signal) → in words, the alarm on this part's own value
        values: dict[int, dict[str, float]] = {index: {} for index in tracker.slots}
        named: set[int] = set()
        sums = tracker.accumulator
        for taker in self.takers.get(m, ()):
            config, slot = taker.runner.config, np.array([tracker.slots[taker.signal]])
            found, extra = charted(sums, slot, self.companions.get((m, taker.runner.name)), config, end - part.start)
            value = float(found[0])
            named.add(taker.signal)
            if not np.isfinite(value):
                continue
            features[f"{taker.key.name}.{config.charted}"] = value
            if config.feature in _IN_UNIT:
                values[taker.signal][config.feature] = value
            if part.complete:
                words = self._feed(taker, end, value, part.id, extra)
                if words:
                    own[taker.runner.name, taker.key.name] = words
        characteristics: list[Characteristic] = []
        for index, slot_number in tracker.slots.items():
            info, slot = self._info(self._keys[m][index]), np.array([slot_number])
            good, other = int(sums.good(slot)[0]), int(sums.other(slot)[0])
            limited = info.lsl is not None or info.usl is not None
            if limited and not values[index] and good:
                extremes = {"lowest reading": "min", "highest reading": "max"}
                for name, feature in extremes.items():
                    values[index][name] = float(sums.feature(slot, feature)[0])  # type: ignore[arg-type]  # mypy widens the literal
            compare = values[index] if limited else {}
            characteristics.append(Characteristic(info, index in named, good, other, compare))
        alarms = list(own.values()) + [
            f"{f.chart}: {f.detail}"
            for f in self._book.during(tracker.place.path, part.start, end)
            if (f.chart, f.signal) not in own
        ]
        opinion = judge(characteristics, alarms, complete=part.complete)
        versions: dict[str, int] = {}
        for runner, channel in self.charts.get(m, ()):
            limits = runner.limits[channel]
            frozen = limits is not None and limits.time <= end  # other charts may be ahead of this part already
            versions[runner.name] = max(versions.get(runner.name, 0), limits.version if limits and frozen else 0)
        verdict = Verdict(
            time=end, place=tracker.place, id=part.id, verdict=opinion.verdict, score=opinion.score,
            reasons=opinion.reasons[:MOST_REASONS], start=part.start, features=features,
            genealogy={name: ", ".join(seen) for name, seen in part.genealogy.items()}, limits_versions=versions,
        )  # fmt: skip
        self._event(tracker, verdict)

    def _feed(self, taker: PartTaker, end: int, value: float, part: str, extra: np.ndarray | None) -> str:
        """Give a part's value to a chart. Returns the alarm in words, empty if there is none."""
        runner = taker.runner
        at, when = np.array([taker.channel]), np.array([end], np.int64)
        broke = int(runner.feed(at, when, np.array([value]), part, extra)[0])
        limits = runner.limits[taker.channel]
        if not broke or limits is None:
            return ""
        names = [r for i, r in enumerate(runner.bank.rule_names) if broke >> i & 1]
        unit = f" {self._info(taker.key).unit}".rstrip()
        return (
            f"{runner.name}: {runner.config.charted} of {taker.key.name} {value:.6g}{unit} breaks rule "
            f"{', '.join(names)} (limits {limits.lcl:.6g} to {limits.ucl:.6g}{unit}, version {limits.version})"
        )

    def _check_length(self, tracker: PartTracker, time: int) -> None:
        """Raise `part-id` when nothing told parts apart for too long while readings came in."""
        idle = tracker.part is not None and not tracker.part.id
        if tracker.warned or idle or tracker.since is None or time <= tracker.since + tracker.longest_ns:
            return
        tracker.warned = True
        when, signal = tracker.since + tracker.longest_ns, tracker.config.signal
        machine = tracker.place.machine
        if tracker.part is None:
            words = f"{machine}/{signal} has had no Good value for {tracker.config.longest}: check its address and type"
        else:
            words = (
                f"{machine}/{signal} has been {tracker.part.id!r} for {tracker.config.longest}: is it the part's id?"
            )
        finding = Finding(
            time=when, place=tracker.place, signal=signal, chart=PART_ID, rule=PART_ID,
            id=finding_id(tracker.place, signal, PART_ID, PART_ID, when, 0), severity="warning",
            statistic=tracker.longest_ns / 1e9, limit=tracker.longest_ns / 1e9,
            part=tracker.part.id if tracker.part else "", detail=f"{words} No verdict is given until it changes",
        )  # fmt: skip
        self._event(tracker, self._book.raise_(finding, remember=False))

    def _calm(self, tracker: PartTracker, time: int, why: str) -> None:
        row = self._book.clear((tracker.place.path, tracker.config.signal, PART_ID), time, why)
        if row is not None:
            self._event(tracker, row)

    def _event(self, tracker: PartTracker, row: PartEvent | Verdict | Finding) -> None:
        if not isinstance(row, Finding):
            series = row.event if isinstance(row, PartEvent) else "part"
            row = msgspec.structs.replace(row, time=tracker.apart(series, row.time))
        self._emit(SignalKey(tracker.place, tracker.config.signal), row.time, row)
