"""Follows the curves of parts: learns their envelopes, judges them, raises and clears their findings.

A curve says all that it has to say of its own part: a finding that is open because of an earlier one makes no part
suspect.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import numpy as np

from analytics.curves.config import TIME, CurveConfig
from analytics.curves.envelope import LEAST_REACH, Doubt, Envelope
from analytics.curves.gather import Curve, Floats, Follower
from analytics.curves.rules import against_bounds, figure
from analytics.findings import FindingBook
from analytics.verdicts import Against
from fieldlab.model import Batch, ChartPoint, Finding, Limits, Place, SignalInfo, SignalKey
from fieldlab.model.finding import finding_id
from fieldlab.model.record import Row
from fieldlab.model.status import is_good

CLEAR_AFTER = 2  # parts in order
_LEAST = 3  # readings that are a curve


class Traits(msgspec.Struct):
    """What the curve of one part says: alarms in words, what fails the part, figures, and the limits in force."""

    alarms: dict[tuple[str, str], str] = {}  # (curve, signal) → words
    against: list[Against] = []
    features: dict[str, float] = {}
    versions: dict[str, int] = {}


class CurveBook:
    """All curves of all machines.

    Args:
        book: the findings.
        emit: takes rows.
        info: what is known of a signal.
    """

    def __init__(
        self, book: FindingBook, emit: Callable[[SignalKey, int, Row], None], info: Callable[[SignalKey], SignalInfo]
    ) -> None:
        self._book, self._emit, self._info = book, emit, info
        self._configs: tuple[CurveConfig, ...] = ()
        self._followers: dict[int, dict[str, Follower]] = {}  # by machine and name
        self._wired: dict[int, list[tuple[Follower, dict[int, int]]]] = {}  # machine → signal index → which

    def configure(self, configs: tuple[CurveConfig, ...], time: int) -> None:
        """Follow these; those that did not change go on."""
        self._configs = configs
        for followers in self._followers.values():
            for name, follower in list(followers.items()):
                if follower.config not in configs:
                    self._close(followers.pop(name), time, "the curve was changed or removed")

    def unwire(self) -> None:
        """Forget which signal feeds what."""
        self._wired = {}

    def wire(self, m: int, index: int, key: SignalKey) -> bool:
        """Take note of a signal of a machine that makes parts. Returns whether a curve takes it."""
        taken = False
        for config in self._configs:
            if key.name not in config.signals or not fnmatchcase(key.place.machine, config.machine):
                continue
            taken = True
            follower = self._followers.setdefault(m, {}).get(config.name)
            if follower is None:
                follower = self._followers[m][config.name] = Follower(config, key.place)
            wired = self._wired.setdefault(m, [])
            found = next((w for f, w in wired if f is follower), None)
            if found is None:
                wired.append((follower, found := {}))
            found[index] = config.signals.index(key.name)
        return taken

    def takes(self, m: int) -> bool:
        """Whether a machine has curves."""
        return m in self._wired

    def add(self, m: int, rows: Batch, start: int, stop: int) -> None:
        """Take readings of the part at hand."""
        for follower, signals in self._wired.get(m, ()):
            signal = rows.signal[start:stop]
            use = (
                np.isin(signal, list(signals)) & is_good(rows.status[start:stop]) & np.isfinite(rows.value[start:stop])
            )
            at = np.flatnonzero(use)
            which = np.array([signals[i] for i in signal[at].tolist()], np.int8)
            follower.add(rows.time[start:stop][at], which, rows.value[start:stop][at])

    def reset(self, m: int) -> None:
        """The next part of a machine begins."""
        for follower in self._followers.get(m, {}).values():
            follower.reset()

    def judge(self, m: int, part: str, start: int, end: int, history: list[tuple[int, str]]) -> Traits:
        """Judge, or learn from, the curves of a part that was seen whole.

        Args:
            m: its machine.
            part: its id.
            start: event time, ns.
            end: event time, ns.
            history: when each phase of it began, and its name.
        """
        found = Traits()
        for follower in self._followers.get(m, {}).values():
            self._judge(follower, part, end, follower.curve(start, history), found)
        return found

    def limits(self) -> list[tuple[SignalKey, str, Limits | None]]:
        """Signal, curve and limits of each that has an envelope, or learns one."""
        return [
            (SignalKey(f.place, f.config.y), f.config.name, f.state.limits)
            for followers in self._followers.values()
            for f in followers.values()
            if f.config.baseline
        ]

    def _judge(self, f: Follower, part: str, end: int, curve: Curve, found: Traits) -> None:
        config, name = f.config, f"{f.config.y}.{f.config.name}"
        if f.config.baseline:
            found.versions[config.name] = f.state.limits.version if f.state.limits else 0
        broken: list[tuple[str, str, float, float]] = []  # rule, words, statistic, limit
        if f.state.too_long or len(curve.x) < _LEAST:
            why = (
                "has too many readings to judge" if f.state.too_long else f"has {len(curve.x)} readings: none to judge"
            )
            found.alarms[config.name, config.y] = f"{config.name}: the curve of {config.y} {why}"
            return
        for rule in config.rule:
            part_of = curve.within(rule.phase) if rule.phase else curve
            other = None
            if rule.other:
                when, value = f.readings(rule.other)
                nothing = np.full(len(part_of.x), np.nan)
                other = np.interp(part_of.time, when, value, np.nan, np.nan) if len(when) else nothing
            value_of = figure(rule, part_of.x, part_of.y, other)
            while_ = f" while {rule.phase}" if rule.phase else ""
            if not np.isfinite(value_of):
                words = f"{config.name}: {rule.label} of {config.y}{while_} cannot be said from its curve"
                found.alarms[config.name, f"{config.y} {rule.label}"] = words
                continue
            found.features[f"{name}.{rule.label}"] = value_of
            beyond = against_bounds(rule, value_of)
            if beyond:
                words = f"{rule.label} of {config.y}{while_} is {beyond}"
                bound = rule.min if rule.min is not None and value_of < rule.min else rule.max
                broken.append((rule.label, words, value_of, bound or 0.0))
                if rule.verdict == "fail":
                    found.against.append(Against(config.y, 0.0, f"{config.name}: {words}"))
                else:
                    found.alarms[config.name, f"{config.y} {rule.label}"] = f"{config.name}: {words}"
        if f.envelope is not None:
            broken += self._compare(f, f.envelope, curve, end, found)
        elif config.baseline and not broken:
            f.baseline.append(f.keep(curve))
            if len(f.baseline) == config.baseline:
                self._freeze(f, end)
        self._tell(f, part, end, broken)

    def _compare(
        self, f: Follower, envelope: Envelope, curve: Curve, end: int, found: Traits
    ) -> list[tuple[str, str, float, float]]:
        config, kept = f.config, f.keep(curve)
        z = envelope.compare(kept[0], kept[1])
        there = np.isfinite(z)
        if there.mean() < LEAST_REACH:
            x = f"{_number(curve.x[0])} to {_number(curve.x[-1])}{self._unit(f, config.x)}"
            grid = f"{_number(envelope.grid[0])} to {_number(envelope.grid[-1])}"
            words = f"the curve of {config.y} spans {config.x} {x}, its envelope {grid}"
            found.alarms[config.name, config.y] = f"{config.name}: {words}"
            return [("reach", words, float(there.mean()), LEAST_REACH)]
        worst = int(np.nanargmax(np.abs(z)))
        statistic = float(abs(z[worst]))
        found.features[f"{config.y}.{config.name}"] = statistic
        point = ChartPoint(
            time=end, place=f.place, signal=config.y, chart=config.name, statistic=statistic, center=0.0,
            ucl=envelope.limit, lcl=0.0, limits_version=1,
        )  # fmt: skip
        self._emit(SignalKey(f.place, config.y), end, point)
        if statistic <= envelope.limit:
            return []
        words = self._where(f, envelope, curve, z, worst)
        found.alarms[config.name, config.y] = f"{config.name}: {words}"
        return [("envelope", words, statistic, envelope.limit)]

    def _where(self, f: Follower, envelope: Envelope, curve: Curve, z: Floats, worst: int) -> str:
        """Where a curve leaves its envelope, in words."""
        config, limit = f.config, envelope.limit
        side = 1.0 if z[worst] > 0 else -1.0
        first = last = worst
        while first > 0 and z[first - 1] * side > limit:
            first -= 1
        while last < len(z) - 1 and z[last + 1] * side > limit:
            last += 1
        x, y = self._unit(f, config.x), self._unit(f, config.y)
        grid = envelope.grid
        span = f"at {config.x} {_number(grid[worst])}{x}"
        if last > first:
            span = (
                f"from {config.x} {_number(grid[first])} to {_number(grid[last])}{x}, most at {_number(grid[worst])}{x}"
            )
        said = float(np.interp(grid[worst], curve.x, curve.y))
        low, high = (float(envelope.mean[worst] + s * limit * envelope.band[worst]) for s in (-1, 1))
        phase = curve.phase[min(int(np.searchsorted(curve.x, grid[worst])), len(curve.phase) - 1)]
        while_ = f", while {phase}" if phase else ""
        elsewhere = int(np.count_nonzero(np.abs(z) > limit)) - (last - first + 1)
        more = f"; beyond it elsewhere, too, at {elsewhere} of {len(z)} points" if elsewhere else ""
        return (
            f"{config.y} is {'above' if side > 0 else 'below'} its envelope {span}{while_}: {said:.4g}{y}, where "
            f"{low:.4g} to {high:.4g}{y} is usual{more}"
        )

    def _unit(self, f: Follower, name: str) -> str:
        return " s" if name == TIME else f" {self._info(SignalKey(f.place, name)).unit}".rstrip()

    def _freeze(self, f: Follower, time: int) -> None:
        learned, key = f.learn(), SignalKey(f.place, f.config.y)
        if isinstance(learned, Doubt):
            del f.baseline[: f.config.baseline // 2]
            if learned.cause != f.state.cause:
                self._close(f, time, "another cause was found")
                f.state.cause = learned.cause
                finding = Finding(
                    time=time, place=f.place, signal=key.name, chart=f.config.name, rule="baseline",
                    id=finding_id(f.place, key.name, f.config.name, "baseline", time, 0), severity="warning",
                    statistic=learned.figure, limit=learned.bound,
                    detail=f"no envelope is frozen, learning goes on: {learned.words}",
                )  # fmt: skip
                self._emit(key, time, self._book.raise_(finding, remember=False))
            return
        if f.state.cause:
            self._close(f, time, "the baseline is fit now: the envelope is frozen")
        f.envelope, f.state.cause = learned, ""
        left = f.config.baseline - learned.n
        span = f"{f.config.x} {_number(learned.grid[0])} to {_number(learned.grid[-1])}"
        one_in = round(1 / f.config.false_alarm_rate)
        note = f"envelope of {learned.n} curves over {span}; one false alarm in {one_in} curves by design" + (
            f"; {left} curves unlike the rest left out" if left else ""
        )
        f.state.limits = Limits(
            version=1, center=0.0, ucl=learned.limit, lcl=0.0, sigma=1.0, n=learned.n, time=time, note=note
        )
        f.baseline = []

    def _tell(self, f: Follower, part: str, end: int, broken: list[tuple[str, str, float, float]]) -> None:
        """Raise what is broken; clear it after some parts in order."""
        if not broken:
            if f.state.open:
                f.state.inside += 1
                if f.state.inside >= CLEAR_AFTER:
                    self._close(f, end, f"in order again for {CLEAR_AFTER} parts")
            return
        f.state.inside = 0
        if f.state.open:
            return
        if f.state.cause:
            self._close(f, end, "a curve broke a rule")
            f.state.cause = ""
        f.state.open = True
        rule, words, statistic, limit = broken[0]
        more = f"; also {'; '.join(w for _, w, _, _ in broken[1:])}" if len(broken) > 1 else ""
        version = f.state.limits.version if f.state.limits else 0
        finding = Finding(
            time=end, place=f.place, signal=f.config.y, chart=f.config.name, rule=rule,
            id=finding_id(f.place, f.config.y, f.config.name, rule, end, version), statistic=statistic, limit=limit,
            limits_version=version, part=part, detail=words + more,
        )  # fmt: skip
        self._emit(SignalKey(f.place, f.config.y), end, self._book.raise_(finding, remember=False))

    def _close(self, f: Follower, time: int, why: str) -> None:
        f.state.open, f.state.inside = False, 0
        row = self._book.clear((f.place.path, f.config.y, f.config.name), time, why)
        if row is not None:
            self._emit(SignalKey(f.place, f.config.y), time, row)

    def save(self) -> list[Any]:
        """State as plain values."""
        return [(m, name, f.save()) for m, followers in self._followers.items() for name, f in followers.items()]

    def load(self, saved: list[Any], configs: tuple[CurveConfig, ...], places: list[Place]) -> None:
        """Take the state of `save`."""
        self._configs = configs
        by_name = {config.name: config for config in configs}
        for m, name, state in saved:
            follower = self._followers.setdefault(m, {})[name] = Follower(by_name[name], places[m])
            follower.load(state)


def _number(value: float) -> str:
    return f"{value:.4g}"
