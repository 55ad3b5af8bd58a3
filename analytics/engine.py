"""Judgement as a pure fold over the journal: records in, findings, part events, verdicts and chart points out.

The same records in the same order give the same rows, bit for bit, however they are cut into calls and however readings
are cut into batches (rows of one machine come in one order; machines may interleave). The configuration comes only from
`Control(action="configure")` records; what is known of a signal also from `SignalInfo` rows, which overrule it for
what follows them. `MachineState` rows come from a signal named `state`.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.coincidences import Coincidences
from analytics.config import (
    COUNT_KINDS,
    VECTOR_KINDS,
    AnalyticsConfig,
    ChartConfig,
    PartConfig,
    config_hash,
    span_ns,
)
from analytics.findings import FindingBook
from analytics.health.monitor import HealthMonitor
from analytics.items import charted, in_force, with_recipes
from analytics.order import Sorter
from analytics.partflow import PartFlow
from analytics.parts import PartTracker, text_at
from analytics.recipes import Recipes
from analytics.runner import ChartRunner, Outlet
from analytics.seen import Watch
from analytics.slices import segment
from analytics.state import encode, grow
from analytics.trend_config import WINDOW, watched
from analytics.trend_runner import TrendRunner
from analytics.vectors import VectorRunner
from analytics.versions import Asked, AskedLog, Wish
from analytics.windows import Windows
from fieldlab.model import (
    Batch,
    Control,
    Limits,
    MachineEvent,
    MachineState,
    Place,
    Record,
    RecordKind,
    SignalInfo,
    SignalKey,
)
from fieldlab.model.record import Row
from fieldlab.model.status import is_good

KINDS = frozenset({
    RecordKind.READINGS, RecordKind.TICK, RecordKind.CONTROL, RecordKind.SIGNAL, RecordKind.EVENT
})  # fmt: skip
DEFAULT_WINDOW = "10s"
AHEAD_NS = (
    2 * 86_400 * 10**9
)  # a reading so far ahead of its commit has a wild clock and would stop its machine's clock
SHORTEST_ARL0 = 2.5
_SNAPSHOT = 11

Runner = ChartRunner | VectorRunner


class Lookup(Protocol):
    """Signal index → key: `fieldlab.model.SignalTable` is one."""

    def __getitem__(self, index: int, /) -> SignalKey:
        """The key of a signal."""
        ...


class SnapshotError(Exception):
    """A snapshot was written by another version of the engine: fold the journal again from its start."""


class _WindowTaker(msgspec.Struct):
    runner: Runner | TrendRunner
    slots: list[int] = []
    channels: list[int] = []
    companion: int | None = None  # slot of the signal that says a sample's size or the recipe


class Engine:
    """Judges. One caller at a time; no clock, no files.

    Attributes:
        config: the configuration in force.
        config_hash: its hash; empty before the first configure record.

    Args:
        table: signal index → key.
        watch: told of every judgement, value by value.
    """

    KINDS = KINDS

    def __init__(self, table: Lookup, watch: Watch | None = None) -> None:
        self._table = table
        self._watch = watch
        self.config = AnalyticsConfig()
        self.config_hash = ""
        self._rows: list[tuple[int, int, Row]] = []
        self._sorter = Sorter(round(self.config.lateness * 1e9))
        self._book = FindingBook()
        self._flow = PartFlow(self._book, self._emit, self._info)
        self._ran = Recipes()
        self._asked = AskedLog()
        self._coincidences = Coincidences()
        self._outlet = Outlet(
            self._emit, self._book, self._part_at, self._info, self._makes_parts, watch, self._share, recipes=self._ran,
            part_start=self._part_start,
        )  # fmt: skip
        self._outlet.why = self._coincidences.around
        self._health = HealthMonitor(self.config.health, self._outlet)
        self._machines: list[Place] = []
        self._machine: dict[Place, int] = {}
        self._machine_of = np.zeros(0, np.int32)
        self._watched = np.zeros(0, bool)
        self._known = 0  # signals that are wired
        self._wired: set[SignalKey] = set()
        self._infos: dict[SignalKey, SignalInfo] = {}  # of the configuration
        self._told: dict[SignalKey, SignalInfo] = {}  # of the journal; only what differs
        self._runners: list[Runner] = []
        self._trends: list[TrendRunner] = []
        self._resets: dict[int, str] = {}  # index of a signal that starts trends afresh → what it said last
        self._reading: list[NDArray[np.intp]] = []  # per runner: signal index → channel, -1 for none
        self._windows: dict[tuple[int, int], Windows] = {}
        self._takers: dict[tuple[int, int], dict[str, _WindowTaker]] = {}
        self._companions: dict[tuple[int, int], int] = {}  # (runner, machine) → index of its companion
        self._recipes: set[int] = set()  # companions that say a recipe
        self._said: dict[int, float] = {}  # companion → its newest value
        self._states: dict[int, str] = {}  # index of a signal named `state` → what it says now
        self._implausible = 0
        self._ignored = 0

    @property
    def counters(self) -> dict[str, int]:
        """Totals: `late` and `implausible` readings (stored, not judged), `pending` ones, `ignored_controls`.

        `unmatched` events told of parts that nobody made.
        `unusable` values made no sense for their chart: a count above its sample's size, an unknown recipe. Readings
        `doubted` or of `sick` sensors were kept from the charts.
        """
        return {
            "unusable": sum(r.unusable for r in self._runners if isinstance(r, ChartRunner)),
            "unmatched": self._flow.book.unmatched,
            "late": int(self._sorter.late.sum()),
            "implausible": self._implausible,
            "pending": self._sorter.pending,
            "doubted": self._health.doubted,
            "sick": self._health.sick,
            "ignored_controls": self._ignored,
        }

    def late(self) -> dict[Place, int]:
        """Late readings of each machine."""
        return dict(zip(self._machines, self._sorter.late.tolist(), strict=True))

    def limits(self) -> list[tuple[SignalKey, str, Limits | None]]:
        """Signal, chart and frozen limits (None while they are learned) of every channel."""
        charts = [(key, r.name, found) for r in self._runners for key, found in zip(r.keys, r.limits, strict=True)]
        return charts + self._flow.curves.limits()

    def versions(self) -> list[dict[str, Any]]:
        """Every version of limits: chart, signal, the limits themselves, and what they are good for.

        `in_force` now, `chosen` for its recipe whenever that runs, `may_return` if a person asks for it.
        """
        return [
            {
                "chart": runner.name,
                "signal": key.path,
                **msgspec.to_builtins(frozen.limits),
                "in_force": runner.in_force(channel) == frozen.limits,
                "chosen": frozen.limits in runner.chosen(channel),
                "may_return": frozen.may_return,
            }
            for runner in self._runners
            for key, channel in runner.plotted()
            for frozen in runner.versions.of(key)
        ]

    def collected(self, chart: str, key: SignalKey, recipe: str | None = None) -> list[list[float]]:
        """The items of a baseline that is still being learned, oldest first; of what runs now, or of a recipe."""
        for runner in self._runners:
            if isinstance(runner, ChartRunner) and runner.name == chart and key in runner.channel:
                return runner.collected(key, recipe)
        return []

    def asked(self) -> list[Asked]:
        """The newest wishes to freeze limits, and what became of them."""
        return list(self._asked.newest)

    def fold(self, records: Sequence[Record]) -> list[Row]:
        """Judge records, in the order of their positions; kinds other than `KINDS` are passed over.

        Raises:
            msgspec.ValidationError: if a configure record does not hold an `AnalyticsConfig`.
        """
        out: list[Row] = []
        for record in records:
            if record.kind == RecordKind.READINGS and record.batch is not None:
                self._take(record.batch, record.time)
            elif record.kind == RecordKind.TICK:
                self._sorter.tick(record.time)
                self._judge()
                out += self._flush()
                self._flow.tick()
                out += self._flush()
            elif record.kind == RecordKind.EVENT:
                self._judge()
                out += self._flush()
                for row in record.rows:
                    if isinstance(row, MachineEvent):
                        self._coincidences.hear(row)
            elif record.kind == RecordKind.SIGNAL:
                news = [row for row in record.rows if isinstance(row, SignalInfo) and self._is_news(row)]
                if news:
                    self._judge()
                    out += self._flush()
                    self._hear(news, record.time)
            elif record.kind == RecordKind.CONTROL:
                self._judge()
                out += self._flush()
                for row in record.rows:
                    if isinstance(row, Control):
                        self._control(row)
                out += self._flush()
        self._judge()
        return out + self._flush()

    def snapshot(self) -> bytes:
        """Everything that `restore` needs to go on, bit for bit."""
        return encode({
            "version": _SNAPSHOT,
            "config": msgspec.to_builtins(self.config),
            "hash": self.config_hash,
            "machines": [msgspec.to_builtins(p) for p in self._machines],
            "known": self._known,
            "sorter": self._sorter.save(),
            "book": self._book.save(),
            "health": self._health.save(),
            "runners": {r.name: r.save() for r in self._runners},
            "trends": {t.name: t.save() for t in self._trends},
            "resets": list(self._resets.items()),
            "windows": [(m, width, w.save()) for (m, width), w in self._windows.items()],
            "trackers": [(m, t.save()) for m, t in self._flow.trackers.items()],
            "parts": self._flow.book.save(),
            "coincidences": self._coincidences.save(),
            "curves": self._flow.curves.save(),
            "told": [msgspec.to_builtins(info) for info in self._told.values()],
            "states": list(self._states.items()),
            "said": list(self._said.items()),
            "ran": self._ran.save(),
            "asked": self._asked.save(),
            "implausible": self._implausible,
            "ignored": self._ignored,
        })  # fmt: skip

    def restore(self, snapshot: bytes) -> None:
        """Go on from a snapshot. The table must know every signal that it knew then, by the same index.

        Raises:
            SnapshotError: if another version of the engine wrote it.
        """
        saved: dict[str, Any] = msgspec.msgpack.decode(snapshot)
        if saved.get("version") != _SNAPSHOT:
            raise SnapshotError(
                f"snapshot version {saved.get('version')!r} is not {_SNAPSHOT}: fold again from the start"
            )
        self.__init__(self._table, self._watch)  # type: ignore[misc]  # starts afresh
        for place in saved["machines"]:
            self._machine_index(msgspec.convert(place, Place))
        self.config = msgspec.convert(saved["config"], AnalyticsConfig)
        self.config_hash = saved["hash"]
        self._infos = {info.key: info for info in self.config.signals}
        self._told = {info.key: info for info in msgspec.convert(saved["told"], list[SignalInfo])}
        self._runners = [_make_runner(c, self._outlet) for c in self.config.charts]
        for runner in self._runners:
            runner.load(saved["runners"][runner.name])
        self._trends = _make_trends(self.config, self._outlet)
        for trend in self._trends:
            trend.load(saved["trends"][trend.name])
        self._resets = {int(i): str(text) for i, text in saved["resets"]}
        self._sorter = Sorter(round(self.config.lateness * 1e9))
        self._sorter.load(saved["sorter"])
        self._book.load(saved["book"])
        self._health.config = self.config.health
        self._health.load(saved["health"])
        for m, width, window in saved["windows"]:
            self._windows[m, width] = Windows(width)
            self._windows[m, width].load(window)
        for m, tracker in saved["trackers"]:
            config = self.config.part_of(self._machines[m].machine)
            if config is not None:
                self._flow.trackers[m] = PartTracker(config, self._machines[m])
                self._flow.trackers[m].load(tracker)
        self._flow.book.load(saved["parts"])
        self._coincidences.load(saved["coincidences"])
        self._flow.curves.load(saved["curves"], self.config.curves, self._machines)
        self._states = {int(i): str(text) for i, text in saved["states"]}
        self._said = {int(i): float(value) for i, value in saved["said"]}
        self._ran.load(saved["ran"])
        self._asked.load(saved["asked"])
        self._implausible, self._ignored = saved["implausible"], saved["ignored"]
        self._wire_all(saved["known"], 0)

    # --- what the journal says ---

    def _take(self, batch: Batch, committed: int) -> None:
        if len(batch) == 0:
            return
        if committed:
            wild = batch.time > committed + AHEAD_NS
            if wild.any():
                self._implausible += int(np.count_nonzero(wild))
                batch = batch.take(~wild)
                if len(batch) == 0:
                    return
        self._wire_up_to(int(batch.signal.max()) + 1)
        self._sorter.add(batch, self._machine_of[batch.signal], self._watched[batch.signal])

    def _is_news(self, info: SignalInfo) -> bool:
        return _judged_by(info) != _judged_by(self._info(info.key))

    def _hear(self, news: list[SignalInfo], time: int) -> None:
        """Judge by these descriptions from now on."""
        for info in news:
            self._told[info.key] = info
        if any(info.key in self._wired for info in news):
            self._wire_all(self._known, time)

    def _control(self, control: Control) -> None:
        if control.action == "configure":
            self._configure(msgspec.convert(control.detail, AnalyticsConfig), control.time)
        elif control.action in ("acknowledge", "shelve"):
            state = "acknowledged" if control.action == "acknowledge" else "shelved"
            why = str(control.detail.get("cause", ""))
            words = f"{state} by {control.by or 'unknown'}{f': {why}' if why else ''}"
            row = self._book.revise(str(control.detail.get("id", "")), control.time, state, words)  # type: ignore[arg-type]  # one of two
            if row is None:
                self._ignored += 1
            else:
                self._emit(SignalKey(row.place, row.signal), control.time, row)
                for trend in self._trends:
                    trend.confirm(row, control)
        elif control.action == "freeze":
            self._freeze(control)
        else:
            self._ignored += 1

    def _freeze(self, control: Control) -> None:
        try:
            wish = msgspec.convert(control.detail, Wish)
        except msgspec.ValidationError:
            self._ignored += 1
            return
        answers: list[Asked] = []
        for runner in self._runners:
            if runner.name == wish.chart:
                answers += runner.wish(wish, control.time, control.by)
        if not answers:
            words = f"no chart {wish.chart!r} has limits of {wish.signal or 'any signal'}"
            words += f" for {wish.recipe!r}" if wish.recipe is not None else ""
            answers.append(Asked(wish.id, control.time, control.by, wish.chart, "", wish.recipe or "", False, words))
        self._asked.newest.extend(answers)

    def _configure(self, config: AnalyticsConfig, time: int) -> None:
        kept = {r.name: r for r in self._runners if r.config in config.charts}
        for runner in self._runners:
            if runner.name not in kept:
                for key in runner.keys:
                    runner.close(key, time, "the chart was changed or removed")
        self.config, self.config_hash = config, config_hash(config)
        self._infos = {info.key: info for info in config.signals}
        self._sorter.set_lateness(round(config.lateness * 1e9))
        self._health.configure(config.health, time)
        trends = {t.name: t for t in self._trends}
        self._trends = [
            trends[t.name] if t.name in trends and t.trend == trends[t.name].trend else t
            for t in _make_trends(config, self._outlet)
        ]
        for trend in trends.values():
            if trend not in self._trends:
                for key in trend.keys:
                    trend.close(key, time, "the trend was changed or removed")
        before = {r.name: r for r in self._runners}
        self._runners = [kept.get(c.label) or _make_runner(c, self._outlet) for c in config.charts]
        for runner in self._runners:
            if runner.name in before and runner.name not in kept:
                runner.versions = before[runner.name].versions.handed_on()
        self._flow.curves.configure(config.curves, time)
        for m, tracker in list(self._flow.trackers.items()):
            if config.part_of(tracker.place.machine) != tracker.config:
                self._flow.drop(m, time)
        self._wire_all(self._known, time)

    # --- wiring: which signal feeds what ---

    def _wire_all(self, known: int, time: int) -> None:
        self._known = 0
        self._machine_of, self._watched = np.zeros(0, np.int32), np.zeros(0, bool)
        self._reading = [np.zeros(0, np.intp) for _ in self._runners]
        self._takers = {}
        self._companions, self._recipes = {}, set()
        self._flow.unwire()
        self._coincidences.unwire()
        self._health.unwire()
        self._ran.unwire()
        self._wire_up_to(known, time)
        self._windows = {key: w for key, w in self._windows.items() if key in self._takers}

    def _wire_up_to(self, known: int, time: int = 0) -> None:
        """Wire signals in the order of their indices, so that channels do not depend on batches."""
        if known <= self._known:
            return
        self._machine_of, self._watched = grow(self._machine_of, known), grow(self._watched, known)
        for i, table in enumerate(self._reading):
            bigger = np.full(len(self._machine_of), -1, np.intp)
            bigger[: len(table)] = table
            self._reading[i] = bigger
        for index in range(self._known, known):
            self._wire(index, self._table[index], time)
        self._known = known

    def _wire(self, index: int, key: SignalKey, time: int) -> None:
        self._wired.add(key)
        m = self._machine_index(key.place)
        self._machine_of[index] = m
        parts = self.config.part_of(key.place.machine)
        self._watched[index] = parts is not None or key.name == "state"
        if any(key.name in chart.limits_by for chart in self.config.charts):
            self._ran.wire(index, key)
            self._watched[index] = True
        info = self._info(key)
        self._coincidences.wire(index, key, parts)
        if parts is not None:
            self._flow.wire(m, parts, index, key, info)
        self._wire_companion(index, key, m, parts)
        charted = self._wire_charts(index, key, m, parts, time)
        self._wire_trends(index, key, m, parts)
        checked = charted or (parts is not None and (info.lsl, info.usl) != (None, None))
        if self._health.wire(index, key, m, number=info.kind == "gauge", checked=checked):
            self._watched[index] = True

    def _wire_charts(self, index: int, key: SignalKey, m: int, parts: PartConfig | None, time: int) -> bool:
        """Wire a signal to the charts that name it. Returns whether one does."""
        charted = False
        if self._info(key).kind == "text":
            return charted
        for i, runner in enumerate(self._runners):
            if not any(fnmatchcase(key.short, pattern) for pattern in runner.config.signals):
                continue
            feeder = _feeder(runner.config, parts)
            if feeder is None:
                continue
            self._watched[index] = charted = True
            before = runner.channel.get(key)
            if before is not None and runner.feeders[before] != feeder:
                runner.close(key, time, "the chart starts afresh: other values feed it now")
            channel = runner.add(key, feeder)
            if feeder == "reading":
                self._reading[i][index] = channel
            elif feeder == "part" and isinstance(runner, ChartRunner):
                self._flow.take(m, runner, channel, index, key)
            else:
                at = (m, span_ns(feeder))
                windows = self._windows.setdefault(at, Windows(at[1]))
                taker = self._takers.setdefault(at, {}).setdefault(runner.name, _WindowTaker(runner))
                taker.slots.append(windows.slot(index))
                taker.channels.append(channel)
            self._flow.charts.setdefault(m, []).append((runner, channel))
        return charted

    def _wire_trends(self, index: int, key: SignalKey, m: int, parts: PartConfig | None) -> None:
        if any(fnmatchcase(key.short, p) for t in self._trends for p in t.trend.reset):
            self._watched[index] = True
            self._resets.setdefault(index, "")
            return
        if self._info(key).kind != "gauge":
            return
        for trend in self._trends:
            feeder = _feeder(trend.config, parts)
            if feeder is None or feeder == "reading" or not trend.wants(key):
                continue
            feeder = feeder if trend.trend.per or feeder == "part" else WINDOW
            self._watched[index] = True
            channel = trend.add(key, feeder)
            if feeder == "part":
                self._flow.take(m, trend, channel, index, key)
            else:
                at = (m, span_ns(feeder))
                windows = self._windows.setdefault(at, Windows(at[1]))
                taker = self._takers.setdefault(at, {}).setdefault(trend.name, _WindowTaker(trend))
                taker.slots.append(windows.slot(index))
                taker.channels.append(channel)

    def _start_afresh(self, batch: Batch) -> None:
        """Tell the trends which tools and the like were changed."""
        for row in np.flatnonzero(np.isin(batch.signal, list(self._resets)) & is_good(batch.status)).tolist():
            index = int(batch.signal[row])
            key, before = self._table[index], self._resets[index]
            text = text_at(batch, row, self._info(key))
            if text and text != before:
                self._resets[index] = text
                for trend in self._trends if before else ():
                    trend.reset(key.place.path, int(batch.time[row]), f"{key.name} is {text} now")

    def _wire_companion(self, index: int, key: SignalKey, m: int, parts: PartConfig | None) -> None:
        """Wire a signal that says the size of samples, or the recipe, of charts on its machine."""
        for i, runner in enumerate(self._runners):
            if not runner.config.companion or not fnmatchcase(key.short, runner.config.companion):
                continue
            feeder = _feeder(runner.config, parts)
            if feeder is None:
                continue
            self._watched[index] = True
            self._companions[i, m] = index
            if runner.config.kind not in COUNT_KINDS:
                self._recipes.add(index)
            if feeder == "part":
                self._flow.companions[m, runner.name] = self._flow.trackers[m].slot(index)
            elif feeder != "reading":
                at = (m, span_ns(feeder))
                slot = self._windows.setdefault(at, Windows(at[1])).slot(index)
                self._takers.setdefault(at, {}).setdefault(runner.name, _WindowTaker(runner)).companion = slot

    def _machine_index(self, place: Place) -> int:
        found = self._machine.get(place)
        if found is None:
            found = self._machine[place] = len(self._machines)
            self._machines.append(place)
            self._sorter.grow(len(self._machines))
        return found

    # --- judging what was released ---

    def _judge(self) -> None:
        batch, machine = self._sorter.release()
        if len(batch) == 0:
            return
        self._coincidences.take(batch, self._info)
        self._ran.take(batch, self._info)
        if self._recipes:
            batch = with_recipes(batch, {i: self._info(self._table[i]) for i in self._recipes})
        cuts = [0, *(np.flatnonzero(np.diff(machine)) + 1).tolist(), len(batch)]
        pieces = [(int(machine[a]), a, b) for a, b in pairwise(cuts)]
        with_windows = {m for m, _ in self._windows}
        mine = {m: segment(batch, a, b) for m, a, b in pieces if m in self._flow.trackers or m in with_windows}
        for m in self._flow.trackers:
            if m in mine:
                self._flow.cut(m, mine[m])
        judged = self._health.judge(batch, machine, self._flow.starts())
        if judged is not batch:
            batch = judged
            mine = {m: segment(batch, a, b) for m, a, b in pieces if m in mine}
        if self._resets:
            self._start_afresh(batch)
        usable = is_good(batch.status) & np.isfinite(batch.value)
        self._feed_readings(batch, machine, usable)
        for (m, _), windows in self._windows.items():
            if m in mine:
                self._feed_windows(m, windows, mine[m])
        for m in self._flow.trackers:
            if m in mine:
                self._flow.run(m, mine[m])
        self._machine_states(batch)
        self._ran.settle()

    def _feed_readings(self, batch: Batch, machine: NDArray[np.int32], usable: NDArray[np.bool_]) -> None:
        for i, (runner, table) in enumerate(zip(self._runners, self._reading, strict=True)):
            channel = table[batch.signal]
            rows = np.flatnonzero((channel >= 0) & usable)
            if runner.config.companion and isinstance(runner, ChartRunner):
                extra = self._extra(i, batch, machine, rows, usable)
                runner.feed(channel[rows], batch.time[rows], batch.value[rows], extra=extra)
            else:
                runner.feed(channel[rows], batch.time[rows], batch.value[rows])
        for index in self._companions.values():
            said = batch.value[(batch.signal == index) & usable]
            if len(said):
                self._said[index] = float(said[-1])

    def _extra(
        self, i: int, batch: Batch, machine: NDArray[np.int32], rows: NDArray[np.intp], usable: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """What the companion of runner `i` says at each of these rows, (n, 1); NaN while it has said nothing."""
        extra = np.full((len(rows), 1), np.nan)
        for m in np.unique(machine[rows]).tolist():
            index = self._companions.get((i, m))
            if index is not None:
                mine, of = machine[rows] == m, np.flatnonzero((batch.signal == index) & usable)
                before = self._said.get(index, np.nan)
                extra[mine, 0] = in_force(batch.time[rows[mine]], batch.time[of], batch.value[of], before)
        return extra

    def _feed_windows(self, m: int, windows: Windows, rows: Batch) -> None:
        slot_of = np.full(len(self._machine_of), -1, np.intp)
        slot_of[list(windows.slots)] = list(windows.slots.values())
        slot = slot_of[rows.signal]
        use = np.flatnonzero(slot >= 0)
        slot, time, value, status = slot[use], rows.time[use], rows.value[use], rows.status[use]
        # every reading of the machine moves its windows, also one that no window takes
        for number, part in windows.segments(rows.time):
            if windows.open is not None and number != windows.open:
                self._close_window(m, windows)
            windows.open = number
            a, b = np.searchsorted(use, [part.start, part.stop])
            windows.accumulator.add(slot[a:b], time[a:b], value[a:b], status[a:b])

    def _close_window(self, m: int, windows: Windows) -> None:
        end = ((windows.open or 0) + 1) * windows.width_ns
        for taker in self._takers[m, windows.width_ns].values():
            if not taker.slots:  # its companion has been seen alone so far
                continue
            slots = np.array(taker.slots, np.intp)
            values, extra = charted(windows.accumulator, slots, taker.companion, taker.runner.config)
            there = np.flatnonzero(np.isfinite(values))
            channels, times = np.array(taker.channels, np.intp)[there], np.full(len(there), end, np.int64)
            if isinstance(taker.runner, ChartRunner):
                taker.runner.feed(channels, times, values[there], extra=None if extra is None else extra[there])
            else:
                taker.runner.feed(channels, times, values[there])
        windows.accumulator.reset()

    def _machine_states(self, batch: Batch) -> None:
        for index in np.unique(batch.signal).tolist():
            key = self._table[index]
            if key.name != "state":
                continue
            for row in np.flatnonzero((batch.signal == index) & is_good(batch.status)).tolist():
                text = text_at(batch, row, self._info(key))
                if text is not None and text != self._states.get(index):
                    self._states[index] = text
                    time = int(batch.time[row])
                    self._emit(key, time, MachineState(time=time, place=key.place, state=text))

    # --- small services ---

    def _emit(self, key: SignalKey, time: int, row: Row) -> None:
        self._rows.append((self._machine_index(key.place), time, row))

    def _flush(self) -> list[Row]:
        rows = sorted(self._rows, key=lambda entry: entry[:2])
        self._rows.clear()
        return [row for _, _, row in rows]

    def _info(self, key: SignalKey) -> SignalInfo:
        return self._told.get(key) or self._infos.get(key) or SignalInfo(key=key)

    def _part_at(self, key: SignalKey, time: int) -> str:
        tracker = self._flow.trackers.get(self._machine[key.place])
        return "" if tracker is None else tracker.part_at(time)

    def _part_start(self, key: SignalKey, end: int) -> int:
        tracker = self._flow.trackers.get(self._machine[key.place])
        return end if tracker is None or tracker.part is None else tracker.part.start

    def _share(self, key: SignalKey, interval_ns: float) -> float | None:
        """ARL0 of a channel that shares its machine's `false_alarms` a shift evenly with the machine's other channels.

        Channels of charts with a rate of their own do not share. Signals that come later add to the load.
        """
        budget = self.config.false_alarms
        if budget is None or interval_ns <= 0:
            return None
        channels = sum(r.channels_on(key.place) for r in self._runners if r.config.design_arl0 is None)
        values = span_ns(self.config.shift) / interval_ns
        return max(values * max(channels, 1) / budget, SHORTEST_ARL0)

    def _makes_parts(self, key: SignalKey) -> bool:
        return self._machine[key.place] in self._flow.trackers


def _judged_by(info: SignalInfo) -> SignalInfo:
    """A description without what no judgement depends on."""
    return msgspec.structs.replace(info, guarantee="end-to-end", target=None)


def _make_trends(config: AnalyticsConfig, outlet: Outlet) -> list[TrendRunner]:
    trends = watched(config.trends, config.charts)
    return [TrendRunner(trend, tuple(trends[:i]), outlet) for i, trend in enumerate(trends)]


def _make_runner(config: ChartConfig, outlet: Outlet) -> Runner:
    return VectorRunner(config, outlet) if config.kind in VECTOR_KINDS else ChartRunner(config, outlet)


def _feeder(chart: ChartConfig, parts: PartConfig | None) -> str | None:
    """What feeds a chart on a machine: `part`, `reading` or a window's width; None if it asks for parts it has not."""
    if chart.kind in VECTOR_KINDS:
        return chart.per or DEFAULT_WINDOW
    if parts is not None and not parts.makes:  # a station: each reading is a part's
        return "reading" if chart.per in ("", "part") else chart.per
    if chart.per == "part" and parts is None:
        return None
    if chart.kind in COUNT_KINDS and not chart.per:
        return "reading"
    return chart.per or ("part" if parts is not None else DEFAULT_WINDOW)
