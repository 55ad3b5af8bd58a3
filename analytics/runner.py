"""Runs one configured chart on its channels: learns, freezes, judges, raises and clears findings.

A finding is raised at the first violation and cleared when `CLEAR_AFTER` values in a row have broken no rule.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.baseline import screen
from analytics.charts import make_bank
from analytics.config import ChartConfig, span_ns
from analytics.findings import FindingBook
from analytics.limits import spread_estimate
from analytics.seen import Seen, Watch, span
from analytics.state import grow, pack, unpack
from fieldlab.model import ChartPoint, Finding, Limits, SignalInfo, SignalKey
from fieldlab.model.finding import finding_id
from fieldlab.model.record import Row

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Feeder = Literal["part", "window", "reading"]

CLEAR_AFTER: dict[Feeder, int] = {"part": 2, "window": 3, "reading": 10}
POINT_EVERY_NS = 1_000_000_000  # at most one chart point a second per signal, and every violation
CALM_ATTEMPTS = 3  # after a refusal for resemblance, so many screenings in a row must pass: chance passes one alone

_VERSION, _COUNT, _OPEN, _INSIDE, _POINT, _CALM, _CLEAR = range(7)
_RULE_WORDS = {
    "1": "is {side} the control limit",
    "2": "is the second of three beyond two thirds of the way to the {side} limit",
    "3": "is the fourth of five beyond a third of the way to the {side} limit",
    "4": "is the eighth in a row {side} the centre line",
    "ewma": "is {side} the control limit of the moving average",
}


class Outlet(msgspec.Struct):
    """What a runner needs of the engine: the rows so far, the book of findings, and what is known."""

    emit: Callable[[SignalKey, int, Row], None]
    book: FindingBook
    part_at: Callable[[SignalKey, int], str]
    info: Callable[[SignalKey], SignalInfo]
    makes_parts: Callable[[SignalKey], bool]
    watch: Watch | None = None


class ChartRunner:
    """One chart. A channel is one signal under it."""

    def __init__(self, config: ChartConfig, outlet: Outlet) -> None:
        self.config = config
        self.name = config.label
        self.bank = make_bank(config)
        self.keys: list[SignalKey] = []
        self.feeders: list[str] = []  # "part", "reading", or the window's width
        self.limits: list[Limits | None] = []
        self.channel: dict[SignalKey, int] = {}
        self._causes: list[str] = []
        self._out = outlet
        self._state = np.zeros((0, 7), np.int64)
        self._values = np.zeros((0, config.baseline))
        self._learning = 0

    def add(self, key: SignalKey, feeder: str) -> int:
        """The channel of a signal; a new one, or one that starts afresh if another thing feeds it now."""
        channel = self.channel.get(key)
        if channel is None:
            channel = self.channel[key] = len(self.keys)
            self.keys.append(key)
            self.feeders.append(feeder)
            self.limits.append(None)
            self._causes.append("")
        elif self.feeders[channel] == feeder:
            return channel
        rows = len(self.keys)
        self.bank.grow(rows)
        self._state, self._values = grow(self._state, rows), grow(self._values, rows)
        self._state[channel] = 0
        self._state[channel, _POINT] = -(2**62)
        kind: Feeder = feeder if feeder in ("part", "reading") else "window"  # type: ignore[assignment]  # mypy keeps str
        self._state[channel, _CLEAR] = CLEAR_AFTER[kind]
        self.feeders[channel], self.limits[channel], self._causes[channel] = feeder, None, ""
        self._learning = sum(found is None for found in self.limits)
        return channel

    def close(self, key: SignalKey, time: int, why: str) -> None:
        """Clear what is open on a signal, because its chart is gone or starts afresh."""
        row = self._out.book.clear((key.place.path, key.name, self.name), time, why)
        if row is not None:
            self._out.emit(key, time, row)

    def feed(self, channel: NDArray[np.intp], time: Ints, value: Floats, part: str | None = None) -> NDArray[np.uint8]:
        """Take finite values in event order.

        Args:
            channel: whose value each is, (n,); the same channel may come several times.
            time: event time, ns, (n,).
            value: (n,).
            part: the part that was made, if the values are features of one.

        Returns:
            The rules that each value broke, (n,); 0 while learning.
        """
        if len(channel) == 0:
            return np.zeros(0, np.uint8)
        broke = np.zeros(len(channel), np.uint8)
        for turn in _rounds(channel):
            rows, ch = turn, channel[turn]
            if self._learning:
                known = self._state[ch, _VERSION] > 0
                if not known.all():
                    self._learn(ch[~known], time[rows[~known]], value[rows[~known]])
                    rows, ch = rows[known], ch[known]
            if len(rows):
                broke[rows] = self._judge(ch, time[rows], value[rows], part)
        return broke

    def _judge(self, ch: NDArray[np.intp], time: Ints, value: Floats, part: str | None) -> NDArray[np.uint8]:
        found = self.bank.update(ch, value)
        state, broken = self._state, found.violation > 0
        was_open = state[ch, _OPEN] > 0
        inside = np.where(was_open & ~broken, state[ch, _INSIDE] + 1, 0)
        state[ch, _INSIDE] = inside
        for i in np.flatnonzero(broken & ~was_open).tolist():
            mask, z = int(found.violation[i]), float(found.statistic[i])
            self._raise(int(ch[i]), int(time[i]), mask, z, part)
        for i in np.flatnonzero(was_open & (inside >= state[ch, _CLEAR])).tolist():
            c, t = int(ch[i]), int(time[i])
            state[c, _OPEN] = state[c, _INSIDE] = 0
            self.close(self.keys[c], t, f"back inside for {state[c, _CLEAR]} values")
        if self._out.watch is not None:
            self._show(ch, time, found.statistic, found.lcl, found.ucl, found.violation)
        show = broken | (time - state[ch, _POINT] >= POINT_EVERY_NS)
        for i in np.flatnonzero(show).tolist():
            c, t, limits = int(ch[i]), int(time[i]), self.limits[int(ch[i])]
            state[c, _POINT] = t
            self._point(c, t, float(found.statistic[i]), limits)
        return found.violation

    def _raise(self, channel: int, time: int, mask: int, statistic: float, part: str | None) -> None:
        key, limits, feeder = self.keys[channel], self.limits[channel], self.feeders[channel]
        if limits is None:  # only frozen channels are judged
            return
        rule = next(r for i, r in enumerate(self.bank.rule_names) if mask >> i & 1)
        # a window ends where the next begins: its finding belongs to the part of its last moment
        start, last = (time, time) if feeder in ("part", "reading") else (time - span_ns(feeder), time - 1)
        half, up = limits.ucl - limits.center, statistic > limits.center
        share = {"2": 2 / 3, "3": 1 / 3, "4": 0.0}.get(rule, 1.0)
        limit = limits.center + (half if up else -half) * share
        side = ("above" if up else "below") if rule in ("1", "4", "ewma") else ("upper" if up else "lower")
        unit = f" {self._out.info(key).unit}".rstrip()
        what = key.name if feeder == "reading" else f"{self.config.feature} of {key.name}"
        detail = (
            f"{what}: {statistic:.6g}{unit} {_RULE_WORDS[rule].format(side=side)} ({limit:.6g}{unit}; "
            f"centre {limits.center:.6g}, sigma {limits.sigma:.3g}, limits version {limits.version})"
        )
        finding = Finding(
            time=time, place=key.place, signal=key.name, chart=self.name, rule=rule,
            id=finding_id(key.place, key.name, self.name, rule, time, limits.version),
            statistic=statistic, limit=limit, limits_version=limits.version,
            part=self._out.part_at(key, last) if part is None else part, detail=detail,
        )  # fmt: skip
        self._state[channel, _OPEN], self._state[channel, _INSIDE] = 1, 0
        book = self._out.book
        self._out.emit(key, time, book.raise_(finding, remember=self._out.makes_parts(key), start=start))

    def _point(self, channel: int, time: int, statistic: float, limits: Limits | None) -> None:
        key = self.keys[channel]
        if limits is None:
            point = ChartPoint(time=time, place=key.place, signal=key.name, chart=self.name, statistic=statistic)
        else:
            point = ChartPoint(
                time=time, place=key.place, signal=key.name, chart=self.name, statistic=statistic,
                center=limits.center, ucl=limits.ucl, lcl=limits.lcl, limits_version=limits.version,
            )  # fmt: skip
        self._out.emit(key, time, point)

    def _show(
        self,
        ch: NDArray[np.intp],
        time: Ints,
        statistic: Floats,
        lcl: Floats,
        ucl: Floats,
        violation: NDArray[np.uint8],
    ) -> None:
        feeder = self.feeders[int(ch[0])]
        width = 0 if feeder in ("part", "reading") else span_ns(feeder)
        names = [self.keys[c].name for c in ch.tolist()]
        if self._out.watch is not None:
            self._out.watch(Seen(self.name, *span(feeder, width, time), statistic, lcl, ucl, violation, names))

    def _learn(self, ch: NDArray[np.intp], time: Ints, value: Floats) -> None:
        state = self._state
        if self._out.watch is not None:
            unknown = np.full(len(ch), np.nan)
            self._show(ch, time, value, unknown, unknown, np.zeros(len(ch), np.uint8))
        self._values[ch, state[ch, _COUNT]] = value
        state[ch, _COUNT] += 1
        for i in np.flatnonzero(time - state[ch, _POINT] >= POINT_EVERY_NS).tolist():
            state[ch[i], _POINT] = time[i]
            self._point(int(ch[i]), int(time[i]), float(value[i]), None)
        for i in np.flatnonzero(state[ch, _COUNT] == self.config.baseline).tolist():
            self._try_freeze(int(ch[i]), int(time[i]))

    def _try_freeze(self, channel: int, time: int) -> None:
        state, values = self._state[channel], self._values[channel]
        found = screen(values)
        cause: str = found.cause
        usable = self.config.on_unstable == "warn" and cause != "constant"
        if not cause and state[_CALM] > 0:
            state[_CALM] -= 1
            cause = self._causes[channel] if state[_CALM] > 0 else ""
        elif cause == "autocorrelated":
            state[_CALM] = CALM_ATTEMPTS
        if cause and not usable:
            if cause != self._causes[channel]:
                self._refuse(channel, time, cause, found.figure, found.bound, found.words)
            half = self.config.baseline // 2
            values[: self.config.baseline - half] = values[half:].copy()
            state[_COUNT] = self.config.baseline - half
            return
        self.close(self.keys[channel], time, "the baseline is fit now: limits are frozen")
        estimate = spread_estimate(values[found.kept])
        design = self.bank.design(estimate.n)
        lcl, ucl = self.bank.freeze(channel, estimate, design)
        screened = len(values) - estimate.n
        note = f"learned from {estimate.n} values; one false alarm in {design.arl0:.0f} values by design"
        note += f"; {screened} outliers left out" if screened else ""
        note += f"; frozen although {found.words}" if cause else ""
        self.limits[channel] = Limits(
            version=1,
            center=estimate.center,
            ucl=ucl,
            lcl=lcl,
            sigma=estimate.sigma,
            n=estimate.n,
            time=time,
            note=note,
        )
        state[_VERSION], state[_COUNT] = 1, 0
        self._causes[channel] = ""
        self._learning -= 1

    def _refuse(self, channel: int, time: int, cause: str, figure: float, bound: float, words: str) -> None:
        key = self.keys[channel]
        self.close(key, time, "another cause was found")
        self._causes[channel] = cause
        finding = Finding(
            time=time, place=key.place, signal=key.name, chart=self.name, rule="baseline",
            id=finding_id(key.place, key.name, self.name, "baseline", time, 0), severity="warning",
            statistic=figure, limit=bound, detail=f"limits are not frozen, learning goes on: {words}",
        )  # fmt: skip
        self._out.emit(key, time, self._out.book.raise_(finding, remember=False))

    def save(self) -> dict[str, Any]:
        """State as plain values; baselines only of channels that still learn."""
        learning = np.flatnonzero(self._state[: len(self.keys), _VERSION] == 0)
        return {
            "keys": [msgspec.to_builtins(k) for k in self.keys],
            "feeders": list(self.feeders),
            "limits": [msgspec.to_builtins(found) for found in self.limits],
            "causes": list(self._causes),
            "state": pack(self._state),
            "learning": pack(learning),
            "values": pack(self._values[learning]),
            "bank": self.bank.save(),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self.keys = [msgspec.convert(k, SignalKey) for k in saved["keys"]]
        self.channel = {key: i for i, key in enumerate(self.keys)}
        self.feeders, self._causes = list(saved["feeders"]), list(saved["causes"])
        self.limits = [msgspec.convert(found, Limits | None) for found in saved["limits"]]
        self._state = unpack(saved["state"])
        self._values = np.zeros((len(self._state), self.config.baseline))
        self._values[unpack(saved["learning"])] = unpack(saved["values"])
        self._learning = sum(found is None for found in self.limits)
        self.bank.load(saved["bank"])


def _rounds(channel: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Rows in rounds: each channel at most once a round, its values in order over the rounds."""
    order = np.argsort(channel, kind="stable")
    ranked = channel[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ranked)) + 1])
    if len(starts) == len(channel):
        return [np.arange(len(channel))]
    turn = np.arange(len(channel)) - np.repeat(starts, np.diff(np.append(starts, len(channel))))
    by_turn = order[np.argsort(turn, kind="stable")]
    return np.split(by_turn, np.cumsum(np.bincount(turn))[:-1])
