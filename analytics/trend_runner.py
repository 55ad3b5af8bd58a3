"""Watches signals for trends to their limits: warns, proposes, and records what a confirmed proposal did."""

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.config import ChartConfig
from analytics.runner import Outlet, rounds
from analytics.state import grow, pack, unpack
from analytics.trend import Forecast, forecast, noise, ramps
from analytics.trend_config import TREND, TrendConfig
from fieldlab.model import Control, Finding, Limits, SignalKey
from fieldlab.model.finding import finding_id

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REMEMBERED = 64  # values
SHORTEST_BASELINE, PARTS, WINDOWS = 20, 40, 60  # values to learn the noise from
LASTING = 10  # windows of a trend
CALM = 3  # values in a row without a trend that clear a finding
EFFECT = 8  # values before and after a proposal was followed
T95 = 2.145  # t quantile, 97.5 %, of 2 (EFFECT - 1) degrees of freedom
_COUNT, _SEEN, _CALM, _NEWEST, _BEGAN, _RISING = range(6)  # integer columns


class Effect(msgspec.Struct):
    """A proposal was followed: what the signal did before and does after."""

    by: str
    done: str
    before: list[float]
    after: list[float] = []
    skipped: bool = False  # the value that may be half before


class TrendRunner:
    """One `[[trend]]`. A channel is one signal under it; it takes values as a chart does."""

    def __init__(self, trend: TrendConfig, others: tuple[TrendConfig, ...], outlet: Outlet) -> None:
        self.trend = trend
        self.config = ChartConfig(signals=trend.signals, per=trend.per, feature=trend.feature)  # type: ignore[arg-type]  # one of its features
        self.name = trend.label
        self.keys: list[SignalKey] = []
        self.channel: dict[SignalKey, int] = {}
        self.limits: list[Limits | None] = []  # it has none of its own
        self.unusable = 0
        self._others, self._out = others, outlet
        self._feeders: list[str] = []
        self._values = np.zeros((0, REMEMBERED))  # newest at the end
        self._state = np.zeros((0, 6), np.int64)
        self._noise = np.zeros((0, 2))  # correlation and innovations' sigma; NaN until learned
        self._resets: dict[str, list[tuple[int, str]]] = {}  # machine → when a tool or the like changed, and to what
        self._effects: dict[int, Effect] = {}

    def wants(self, key: SignalKey) -> bool:
        """Whether it watches a signal: it names it, no other one before it does, and there is a limit to reach."""
        found = self.trend.on and self.trend.names(key.short) and not any(t.names(key.short) for t in self._others)
        return found and self.trend.limits(self._out.info(key)) != (None, None)

    def in_force(self, channel: int) -> None:
        """It has no limits of its own."""

    def add(self, key: SignalKey, feeder: str) -> int:
        """The channel of a signal; a new one, or one that starts afresh if another thing feeds it now."""
        channel = self.channel.get(key)
        if channel is None:
            channel = self.channel[key] = len(self.keys)
            self.keys.append(key)
            self._feeders.append(feeder)
            self.limits.append(None)
        elif self._feeders[channel] == feeder:
            return channel
        self._values, self._state = grow(self._values, channel + 1), grow(self._state, channel + 1)
        self._noise = grow(self._noise, channel + 1)
        self._state[channel], self._noise[channel] = 0, np.nan
        self._feeders[channel] = feeder
        return channel

    def reset(self, place: str, time: int, what: str) -> None:
        """A tool or the like was changed: what comes later starts afresh."""
        known = self._resets.setdefault(place, [])
        known.append((time, what))
        del known[:-20]

    def feed(
        self, channel: NDArray[np.intp], time: Ints, value: Floats, part: str | None = None, extra: Floats | None = None
    ) -> NDArray[np.uint16]:
        """Take finite values in event order, as `ChartRunner.feed` does. No value breaks a rule here."""
        del extra  # a chart's: a trend has values alone
        for turn in rounds(channel):
            self._take(channel[turn], time[turn], value[turn], part)
        return np.zeros(len(channel), np.uint16)

    def _take(self, ch: NDArray[np.intp], time: Ints, value: Floats, part: str | None) -> None:
        state = self._state
        for c, t in zip(ch.tolist(), time.tolist(), strict=True):
            for when, what in self._resets.get(self.keys[c].place.path, ()):
                if state[c, _NEWEST] <= when < t and state[c, _COUNT]:
                    self.close(self.keys[c], when, f"starts afresh: {what}")
                    state[c, [_COUNT, _CALM, _RISING]] = 0
        self._values[ch, :-1] = self._values[ch, 1:]
        self._values[ch, -1] = value
        new = state[ch, _SEEN] == 0
        state[ch[new], _BEGAN] = time[new]
        state[ch, _COUNT] += 1
        state[ch, _SEEN] += 1
        state[ch, _NEWEST] = time
        for c in ch[(state[ch, _SEEN] >= SHORTEST_BASELINE) & np.isnan(self._noise[ch, 0])].tolist():
            by_part = self._feeders[c] == "part"
            learned = self.trend.baseline or (PARTS if by_part else WINDOWS)
            if state[c, _SEEN] == learned:
                self._noise[c] = noise(self._values[c, -learned:], 0.15 if by_part else 0.25)
        for c in (set(self._effects) & set(ch.tolist())) if self._effects else ():
            self._follow(c, float(self._values[c, -1]), int(state[c, _NEWEST]))
        # one after the other in length: series of one length are judged together
        length = np.minimum(state[ch, _COUNT], REMEMBERED)
        ready = (self._noise[ch, 1] > 0) & (length >= 4)
        for n in np.unique(length[ready]).tolist():
            at = np.flatnonzero(ready & (length == n))
            found = ramps(self._values[ch[at], -n:], self._noise[ch[at], 0], self._noise[ch[at], 1])
            told = np.where(state[ch[at], _CALM] > 0, found.goes_on, found.is_trend)
            for i, is_trend, ramp in zip(at.tolist(), told.tolist(), found.length.tolist(), strict=True):
                if is_trend or state[ch[i], _CALM] or state[ch[i], _RISING]:
                    self._judge(int(ch[i]), int(time[i]), n, ramp if is_trend else 0, part)

    def _judge(self, c: int, time: int, n: int, ramp: int, part: str | None) -> None:
        """Raise or clear; `ramp` is 0 where there is no trend. The column CALM is above 0 while a finding is open."""
        key, state = self.keys[c], self._state[c]
        lower, upper = self.trend.limits(self._out.info(key))
        ahead = None
        if ramp:
            phi, sigma = self._noise[c].tolist()
            ahead = forecast(self._values[c, -n:], phi, sigma, ramp, lower, upper)
        near = ahead is not None and ahead.first <= self.trend.warn
        if self._feeders[c] != "part":  # windows depend on each other, and wander: a trend among them must last
            state[_RISING] = state[_RISING] + 1 if near and ramp >= LASTING else 0
            near = bool(state[_RISING] >= CALM)
        if state[_CALM]:
            still = ahead is not None and ahead.first <= 2 * self.trend.warn
            state[_CALM] = 1 + CALM if still else state[_CALM] - 1
            if state[_CALM] == 1:
                state[_CALM] = 0
                if c not in self._effects:
                    self.close(key, time, f"no trend for {CALM} values")
        elif near and ahead is not None:
            self._raise(c, time, ramp, ahead, (lower, upper), part)

    def _raise(
        self, c: int, time: int, ramp: int, ahead: Forecast, limits: tuple[float | None, float | None], part: str | None
    ) -> None:
        key, rule = self.keys[c], "upper" if ahead.upper else "lower"
        info = self._out.info(key)
        unit = f" {info.unit}".rstrip()
        by_part = self._feeders[c] == "part"
        named = ("USL" if ahead.limit == info.usl else "upper limit") if ahead.upper else None
        named = named or ("LSL" if ahead.limit == info.lsl else "lower limit")
        far = f"{ahead.first} to {ahead.last}" if ahead.last is not None else f"{ahead.first} or more"
        detail = (
            f"{self.trend.feature} of {key.name} {'rises' if ahead.upper else 'falls'} by {abs(ahead.slope):.3g}{unit}"
            f" {'a part' if by_part else f'every {self._feeders[c]}'} for {ramp} {_many(by_part)}: reaches {named}"
            f" {ahead.limit:.6g}{unit} in {far} {_many(by_part)} (90 %), about {self._clock(c, ahead.expected)}."
            f" Proposed: {self._proposal(c, ahead, limits)}"
        )
        finding = Finding(
            time=time, place=key.place, signal=key.name, chart=TREND, rule=rule,
            id=finding_id(key.place, key.name, TREND, rule, time, 0), severity="warning",
            statistic=ahead.level, limit=ahead.limit, part=self._out.part_at(key, time) if part is None else part,
            detail=detail,
        )  # fmt: skip
        self._state[c, _CALM] = 1 + CALM
        self._out.emit(key, time, self._out.book.raise_(finding, remember=False))

    def _clock(self, c: int, values: int) -> str:
        """How long so many values take, in words."""
        seen, newest, began = self._state[c, [_SEEN, _NEWEST, _BEGAN]].tolist()
        seconds = (newest - began) / max(seen - 1, 1) / 1e9 * values
        if seconds < 120:
            return f"{seconds:.0f} s"
        return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

    def _proposal(self, c: int, ahead: Forecast, limits: tuple[float | None, float | None]) -> str:
        if self.trend.propose:
            return self.trend.propose
        key, words = self.keys[c], []
        changed = self._resets.get(key.place.path)
        if changed:
            words.append(f"change the {changed[-1][1].split(' ')[0].removesuffix('_id')}")
        lower, upper = limits
        if lower is not None and upper is not None and self._feeders[c] == "part":
            target = self._out.info(key).target
            middle = (lower + upper) / 2 if target is None else target
            words.append(f"offset by {middle - ahead.level:+.3g} {self._out.info(key).unit}".rstrip())
        if self._feeders[c] == "part" and ahead.first <= 2:
            words.append("hold the next parts and measure them again")
        return ", or ".join(words) or "find what wears, clogs or heats up before then"

    # --- what people do ---

    def confirm(self, finding: Finding, control: Control) -> None:
        """A person followed a proposal: record what the signal does now."""
        done = str(control.detail.get("done", ""))
        c = self.channel.get(SignalKey(finding.place, finding.signal))
        if c is None or not done or finding.chart != TREND:
            return
        n = min(int(self._state[c, _COUNT]), EFFECT)
        self._effects[c] = Effect(control.by or "unknown", done, self._values[c, REMEMBERED - n :].tolist())
        self._state[c, _COUNT] = 0

    def _follow(self, c: int, value: float, time: int) -> None:
        effect, key = self._effects[c], self.keys[c]
        if not effect.skipped:
            effect.skipped = True
            self._state[c, _COUNT] = 0
            return
        effect.after.append(value)
        if len(effect.after) == EFFECT:
            del self._effects[c]
            self._state[c, _CALM] = 0
            self._close(key, time, effect_words(effect, self._out.info(key).unit))

    def close(self, key: SignalKey, time: int, why: str) -> None:
        """Clear what is open on a signal; not while the effect of a proposal is looked at."""
        if self.channel.get(key) not in self._effects:
            self._close(key, time, why)

    def _close(self, key: SignalKey, time: int, why: str) -> None:
        row = self._out.book.clear((key.place.path, key.name, TREND), time, why)
        if row is not None:
            self._out.emit(key, time, row)

    # --- saving ---

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        n = len(self.keys)
        return {
            "keys": [msgspec.to_builtins(k) for k in self.keys],
            "feeders": list(self._feeders),
            "values": pack(self._values[:n]),
            "state": pack(self._state[:n]),
            "noise": pack(self._noise[:n]),
            "resets": self._resets,
            "effects": [(c, msgspec.to_builtins(e)) for c, e in self._effects.items()],
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self.keys = [msgspec.convert(k, SignalKey) for k in saved["keys"]]
        self.channel = {key: i for i, key in enumerate(self.keys)}
        self.limits = [None] * len(self.keys)
        self._feeders = list(saved["feeders"])
        self._values, self._state, self._noise = (unpack(saved[k]) for k in ("values", "state", "noise"))
        self._resets = {place: [(int(t), str(w)) for t, w in found] for place, found in saved["resets"].items()}
        self._effects = {int(c): msgspec.convert(e, Effect) for c, e in saved["effects"]}


def effect_words(effect: Effect, unit: str) -> str:
    """How the mean moved, with a 95 % interval (Welch's standard error).

    >>> effect_words(Effect("anna", "offset", [25.02] * 4 + [25.022] * 4, [25.0] * 4 + [25.002] * 4), "mm")
    'after "offset" by anna the mean of 8 values moved from 25.021 to 25.001 mm, by -0.02 mm (95 %: -0.0211 to -0.0189)'
    """
    before, after = np.array(effect.before), np.array(effect.after)
    unit = f" {unit}".rstrip()
    if len(before) < 2:
        return f'after "{effect.done}" by {effect.by} the mean of {len(after)} values is {np.mean(after):.6g}{unit}'
    moved = float(np.mean(after) - np.mean(before))
    error = T95 * math.sqrt(float(np.var(before, ddof=1)) / len(before) + float(np.var(after, ddof=1)) / len(after))
    return (
        f'after "{effect.done}" by {effect.by} the mean of {len(after)} values moved from {np.mean(before):.6g} to'
        f" {np.mean(after):.6g}{unit}, by {moved:.3g}{unit} (95 %: {moved - error:.3g} to {moved + error:.3g})"
    )


def _many(by_part: bool) -> str:
    return "parts" if by_part else "values"
