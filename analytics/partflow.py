"""Follows the parts of every machine: part events, features into charts, verdicts, and the `part-id` health check."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

import msgspec
import numpy as np

from analytics.config import PartConfig
from analytics.curves.follow import CurveBook, Traits
from analytics.findings import FindingBook
from analytics.items import charted
from analytics.partbook import MOST_REASONS, Fact, Life, PartBook
from analytics.parts import Part, PartTracker, slots_of, text_at
from analytics.runner import ChartRunner
from analytics.slices import segment
from analytics.trend_runner import TrendRunner
from analytics.vectors import VectorRunner
from analytics.verdicts import Characteristic, Opinion, against_limits, judge
from fieldlab.model import Batch, Finding, PartEvent, PartEventKind, SignalInfo, SignalKey, Verdict
from fieldlab.model.finding import finding_id
from fieldlab.model.record import Row
from fieldlab.model.status import is_good

PART_ID = "part-id"  # chart and rule of the health finding
AGAIN = "made again on this machine"
MOST_FACTS = 10_000  # of one part, or of those made at once
_SILENT = frozenset({"", "0", "false", "False"})
_NOTHING: dict[PartEventKind, frozenset[str]] = {  # what a signal says that tells no event
    "measure": frozenset(), "inspect": frozenset({""}), "consume": frozenset({""}),
    "rework": _SILENT, "hold": _SILENT, "release": _SILENT,
}  # fmt: skip
_IN_UNIT = ("mean", "last", "min", "max")  # features that a specification limit can judge
_REMEMBERS = {"ewma": "; its moving average", "cusum": "; its cumulative sum"}  # what their limits are of


class PartTaker(msgspec.Struct):
    """A chart that takes one value a part of one signal."""

    runner: ChartRunner | TrendRunner
    channel: int
    signal: int
    key: SignalKey
    slot: int


class _Values(msgspec.Struct):
    """What is known of a part's own values.

    Attributes:
        values: signal index → name → value to compare with the specification.
        features: as the verdict tells them.
        own: (chart, signal) → in words, the alarm on this part's own value.
        named: signals that a chart with one value a part names.
        absent: charted values of phases that were not there, in words.
        curves: what its curves say.
    """

    values: dict[int, dict[str, float]]
    features: dict[str, float] = {}
    own: dict[tuple[str, str], str] = {}
    named: set[int] = set()
    absent: list[str] = []
    curves: Traits = msgspec.field(default_factory=Traits)


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
        self._phase: dict[int, int] = {}  # machine → index of the signal that names phases
        self._riding: dict[int, dict[int, SignalKey]] = {}
        self._telling: dict[int, dict[int, tuple[PartEventKind, SignalKey]]] = {}
        self._started: dict[int, list[Part]] = {}
        self._book, self._emit, self._info = book, emit, info
        self.book = PartBook(self._is_making)
        self.curves = CurveBook(book, emit, info)

    def unwire(self) -> None:
        """Forget which signal feeds what; trackers stay."""
        self.takers, self.charts, self._keys, self._watched, self._riding = {}, {}, {}, {}, {}
        self.companions, self._telling, self._phase = {}, {}, {}
        self.curves.unwire()

    def wire(self, m: int, config: PartConfig, index: int, key: SignalKey, info: SignalInfo) -> None:
        """Take note of a signal of a machine that makes parts."""
        tracker = self.trackers.get(m)
        if tracker is None:
            tracker = self.trackers[m] = PartTracker(config, key.place)
        if key.name == config.signal:
            self._watched[m] = index
        if key.name == config.phases:
            self._phase[m] = index
        if key.name in config.genealogy or key.name == config.nested:
            self._riding.setdefault(m, {})[index] = key
        kind = config.told_by(key.name)
        if kind is not None:
            self._telling.setdefault(m, {})[index] = kind, key
        if config.makes:
            self.curves.wire(m, index, key)
        if config.makes and (info.lsl is not None or info.usl is not None):
            tracker.slot(index)
        self._keys.setdefault(m, {})[index] = key

    def take(self, m: int, runner: ChartRunner | TrendRunner, channel: int, index: int, key: SignalKey) -> None:
        """Give a chart or a trend one value a part of a signal."""
        tracker = self.trackers[m]
        tracker.slot(index)
        slot = tracker.slot(index, runner.config.phase)
        self.takers.setdefault(m, []).append(PartTaker(runner, channel, index, key, slot))

    def drop(self, m: int, time: int) -> None:
        """Forget a machine's parts, because they are told apart otherwise now."""
        tracker = self.trackers.pop(m)
        self._calm(tracker, time, "parts are told apart otherwise now")

    def cut(self, m: int, rows: Batch) -> None:
        """Find the parts that start in these readings; `run` enters them."""
        tracker = self.trackers[m]
        info = self._info(SignalKey(tracker.place, tracker.config.signal))
        self._started[m] = tracker.cut(rows, self._watched.get(m, -1), info)
        if m in self._phase:
            named = np.flatnonzero((rows.signal == self._phase[m]) & is_good(rows.status)).tolist()
            info = self._info(SignalKey(tracker.place, tracker.config.phases))
            said = {int(rows.time[row]): text for row in named if (text := text_at(rows, row, info)) is not None}
            tracker.phases.tell(list(said), list(said.values()))

    def starts(self) -> dict[int, np.ndarray]:
        """Machine → event times at which parts start in the readings that were cut last."""
        return {m: np.array([p.start for p in parts], np.int64) for m, parts in self._started.items()}

    def tick(self) -> None:
        """Time passed: join what was said of parts to their verdicts, and tell those that it changes."""
        for verdict in self.book.tick():
            self._emit(SignalKey(verdict.place, PART_ID), verdict.time, verdict)

    def _is_making(self, machines: str, part: str) -> bool:
        return any(
            t.part is not None
            and t.config.makes
            and part in t.part.ids
            and (not machines or fnmatchcase(t.place.machine, machines))
            for t in self.trackers.values()
        )

    def run(self, m: int, rows: Batch) -> None:
        """Go through the readings of a machine: sums, part starts and ends, verdicts."""
        tracker = self.trackers[m]
        started = self._started.pop(m, [])
        if tracker.since is None:
            tracker.since = int(rows.time[0])
        size = 1 + max(int(rows.signal.max()), max(tracker.slots, default=-1))
        slot_of = {phase: slots_of(slots, size) for phase, slots in (("", tracker.slots), *tracker.phase_slots.items())}
        at = ridden = 0
        for part in started:
            stop, after = (int(np.searchsorted(rows.time, part.start, side)) for side in ("left", "right"))
            self._follow(m, rows, ridden, stop)
            self._sum(m, slot_of, rows, at, stop)
            self._check_length(tracker, part.start)
            self._finish(m, tracker, part.start)
            tracker.part = part
            self._ride(m, rows, stop, after)
            self._begin(tracker, part)
            self._follow(m, rows, stop, after, riding=False)
            at, ridden = stop, after
        self._follow(m, rows, ridden, len(rows))
        self._sum(m, slot_of, rows, at, len(rows))
        tracker.phases.spend(int(rows.time[-1]))
        self._check_length(tracker, int(rows.time[-1]))

    def _sum(self, m: int, slot_of: dict[str, np.ndarray], rows: Batch, start: int, stop: int) -> None:
        """Add readings to the part, and to the phases that they are in."""
        if start >= stop:
            return
        tracker = self.trackers[m]
        self.curves.add(m, rows, start, stop)
        signal, time = rows.signal[start:stop], rows.time[start:stop]
        for phase, slots in slot_of.items():
            slot = slots[signal]
            use = slot >= 0
            if phase:
                use &= tracker.phases.during(time, phase)
            at = np.flatnonzero(use)
            tracker.accumulator.add(slot[at], time[at], rows.value[start:stop][at], rows.status[start:stop][at])

    def _ride(self, m: int, rows: Batch, start: int, stop: int) -> None:
        """Take note of what rides along as a part starts; `_begin` tells it."""
        for _, key, text, _ in self._said(m, rows, start, stop, telling=False):
            if text:
                self.trackers[m].riding[key.name] = text

    def _follow(self, m: int, rows: Batch, start: int, stop: int, *, riding: bool = True) -> None:
        """Follow tool, lot and whatever else rides along, and signals that tell events, in the order of their times."""
        tracker = self.trackers[m]
        for time, key, text, value in self._said(m, rows, start, stop, riding=riding):
            part, kind = tracker.part, tracker.config.told_by(key.name)
            if kind is not None:
                if part is not None and part.id and text not in _NOTHING[kind]:
                    self._tell(tracker, part, kind, time, key, text, value)
            elif text and text != tracker.riding.get(key.name):
                tracker.riding[key.name] = text
                if part is not None and part.id and key.name in tracker.config.genealogy:
                    self._consume(tracker, part, time, key.name, text)

    def _said(
        self, m: int, rows: Batch, start: int, stop: int, *, riding: bool = True, telling: bool = True
    ) -> Iterator[tuple[int, SignalKey, str, float]]:
        """Time, signal, text and number of each Good reading of signals that ride along, or that tell events."""
        keys = dict(self._riding.get(m, {})) if riding else {}
        if telling:
            keys |= {index: key for index, (_, key) in self._telling.get(m, {}).items()}
        if not keys or start >= stop:
            return
        piece = segment(rows, start, stop)
        for row in np.flatnonzero(np.isin(piece.signal, list(keys)) & is_good(piece.status)).tolist():
            key = keys[int(piece.signal[row])]
            text = text_at(piece, row, self._info(key))
            if text is not None:
                yield int(piece.time[row]), key, text, float(piece.value[row])

    def _tell(
        self, tracker: PartTracker, part: Part, kind: PartEventKind, time: int, key: SignalKey, text: str, value: float
    ) -> None:
        """An event of the part at hand; the same said of it again is none."""
        said = f"{part.id}\0{text}"
        if tracker.said.get(key.name) == said or (kind == "measure" and not np.isfinite(value)):
            return
        tracker.said[key.name] = said
        if kind == "consume":
            self._consume(tracker, part, time, key.name, text)
            return
        number = value if kind == "measure" else None
        beyond, words = against_limits(self._info(key), "value", value) if kind == "measure" else (-1.0, "")
        for name in part.ids:
            told = "" if kind == "measure" else text
            event = PartEvent(
                time=time, place=tracker.place, event=kind, id=name, other=key.name, value=number, text=told
            )
            self._event(tracker, event)
            fact = Fact(
                time=time, place=tracker.place.path, event=kind, id=name, signal=key.name, text=told, value=number,
                beyond=beyond, words=words, of=tracker.config.of,
            )  # fmt: skip
            if not tracker.config.makes:
                self.book.say(fact)
            elif kind != "measure" and len(part.facts) < MOST_FACTS:  # what is measured here is judged by its readings
                part.facts.append(fact)

    def _begin(self, tracker: PartTracker, part: Part) -> None:
        tracker.since, tracker.warned = part.start, False
        self._calm(tracker, part.start, f"{tracker.config.signal} changed")
        tracker.nest(part)
        if not tracker.config.makes or not part.id:
            return
        for name in part.ids:
            text = "" if part.complete else "its start was not seen"
            self._event(tracker, PartEvent(time=part.start, place=tracker.place, event="start", id=name, text=text))
            if tracker.config.id and self.book.find(tracker.place, name) is not None:
                again = PartEvent(time=part.start, place=tracker.place, event="rework", id=name, text=AGAIN)
                self._event(tracker, again)
        if tracker.config.nested:
            self._consume(tracker, part, part.start, "nest", part.id)
        for name in tracker.config.genealogy:
            if name in tracker.riding:
                self._consume(tracker, part, part.start, name, tracker.riding[name])

    def _consume(self, tracker: PartTracker, part: Part, time: int, name: str, value: str) -> None:
        seen = part.genealogy.setdefault(name, [])
        if value not in seen:
            seen.append(value)
        for member in part.ids:
            event = PartEvent(time=time, place=tracker.place, event="consume", id=member, other=value, text=name)
            self._event(tracker, event)

    def _finish(self, m: int, tracker: PartTracker, end: int) -> None:
        part = tracker.part
        tracker.phases.spend(end)
        if tracker.config.makes and part is not None and part.id:
            for name in part.ids:
                self._event(tracker, PartEvent(time=end, place=tracker.place, event="end", id=name))
            self._verdict(m, tracker, part, end)
        self._book.forget(tracker.place.path, end)
        tracker.accumulator.reset()
        tracker.phases.begin(end)
        self.curves.reset(m)

    def _features(self, m: int, tracker: PartTracker, part: Part, end: int) -> _Values:
        """Feed the charts of a part, and judge its curves."""
        found = _Values(values={index: {} for index in tracker.slots})
        sums = tracker.accumulator
        for taker in self.takers.get(m, ()):
            config, slot = taker.runner.config, np.array([taker.slot])
            length = tracker.phases.spent.get(config.phase, 0) if config.phase else end - part.start
            feature, extra = charted(sums, slot, self.companions.get((m, taker.runner.name)), config, length)
            value = float(feature[0])
            found.named.add(taker.signal)
            if not np.isfinite(value):
                if config.phase and sums.good(np.array([tracker.slots[taker.signal]]))[0]:
                    found.absent.append(f"no Good reading of {taker.key.name} while {config.phase}")
                continue
            name = f"{taker.key.name}.{config.phase}" if config.phase else taker.key.name
            found.features[f"{name}.{config.charted}"] = value
            if config.feature in _IN_UNIT:
                found.values[taker.signal][config.feature_words] = value
            if part.complete:
                words = self._feed(taker, end, value, part.id, extra)
                if words:
                    found.own[taker.runner.name, taker.key.name] = words
        if part.complete:
            found.curves = self.curves.judge(m, part.id, part.start, end, tracker.phases.history)
        found.own |= found.curves.alarms
        found.features |= found.curves.features
        return found

    def _verdict(self, m: int, tracker: PartTracker, part: Part, end: int) -> None:
        found = self._features(m, tracker, part, end)
        sums, values, own, curves = tracker.accumulator, found.values, found.own, found.curves
        characteristics: list[Characteristic] = []
        for index, slot_number in tracker.slots.items():
            info, slot = self._info(self._keys[m][index]), np.array([slot_number])
            good, other = int(sums.good(slot)[0]), int(sums.other(slot)[0])
            limited = info.lsl is not None or info.usl is not None
            sick = bool(sums.sick(slot)[0])
            if limited and not values[index] and good and not sick:
                extremes = {"lowest reading": "min", "highest reading": "max"}
                for name, feature in extremes.items():
                    values[index][name] = float(sums.feature(slot, feature)[0])  # type: ignore[arg-type]  # mypy widens the literal
            compare = values[index] if limited else {}
            characteristics.append(Characteristic(info, index in found.named or sick, good, other, compare))
        alarms = list(own.values()) + [
            f"{f.chart}: {f.detail}"
            for f in self._book.during(tracker.place.path, part.start, end)
            if (f.chart, f.signal) not in own
        ]
        opinion = judge(characteristics, alarms + found.absent, complete=part.complete, against=curves.against)
        versions = dict(curves.versions)
        for runner, channel in self.charts.get(m, ()):
            limits = runner.in_force(channel)
            frozen = limits is not None and limits.time <= end  # other charts may be ahead of this part already
            versions[runner.name] = max(versions.get(runner.name, 0), limits.version if limits and frozen else 0)
        verdict = Verdict(
            time=end, place=tracker.place, id=part.id, verdict=opinion.verdict, score=opinion.score,
            reasons=opinion.reasons[:MOST_REASONS], start=part.start, features=found.features,
            genealogy={name: ", ".join(seen) for name, seen in part.genealogy.items()}, limits_versions=versions,
        )  # fmt: skip
        for name in part.ids:
            self._conclude(tracker, part, msgspec.structs.replace(verdict, id=name), opinion)

    def _conclude(self, tracker: PartTracker, part: Part, verdict: Verdict, opinion: Opinion) -> None:
        """Tell the verdict of one part, and remember what it rests on: a next revision, if the part was judged here."""
        before = self.book.find(tracker.place, verdict.id)
        if before is not None:
            verdict = msgspec.structs.replace(verdict, revision=before.verdict.revision + 1)
        life = Life(verdict, list(opinion.against), list(opinion.doubts), opinion.closeness)
        if before is not None:
            life.times = before.times
            if tracker.config.id:
                life.note("rework", before.verdict.genealogy.get("rework", AGAIN))
        facts = [fact for fact in part.facts if fact.id == verdict.id]
        for fact in facts:
            life.take(fact)
        if facts:
            life.revise()
        time = tracker.apart("part", verdict.time, self.book.used(tracker.place))
        life.verdict = msgspec.structs.replace(life.verdict, time=time)
        self._emit(SignalKey(tracker.place, tracker.config.signal), time, life.verdict)
        if tracker.config.remember:
            self.book.keep(life, tracker.config.remember)

    def _feed(self, taker: PartTaker, end: int, value: float, part: str, extra: np.ndarray | None) -> str:
        """Give a part's value to a chart. Returns the alarm in words, empty if there is none."""
        runner = taker.runner
        at, when = np.array([taker.channel]), np.array([end], np.int64)
        broke = int(runner.feed(at, when, np.array([value]), part, extra)[0])
        limits = runner.in_force(taker.channel)
        if not broke or limits is None or isinstance(runner, TrendRunner):
            return ""
        names = [r for i, r in enumerate(runner.bank.rule_names) if broke >> i & 1]
        unit = f" {self._info(taker.key).unit}".rstrip()
        remembers = _REMEMBERS.get(runner.config.kind, "")
        return (
            f"{runner.name}: {runner.config.feature_words} of {taker.key.name} {value:.6g}{unit}{remembers} breaks "
            f"rule {', '.join(names)} (limits {limits.lcl:.6g} to {limits.ucl:.6g}{unit}, version {limits.version})"
        )

    def _check_length(self, tracker: PartTracker, time: int) -> None:
        """Raise `part-id` when nothing told parts apart for too long while readings came in."""
        idle = not tracker.config.makes or (tracker.part is not None and not tracker.part.id)
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

    def _event(self, tracker: PartTracker, row: PartEvent | Finding) -> None:
        if isinstance(row, PartEvent):
            row = msgspec.structs.replace(row, time=tracker.apart(row.event, row.time))
        self._emit(SignalKey(tracker.place, tracker.config.signal), row.time, row)
