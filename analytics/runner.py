"""Runs one configured chart on its channels: learns, freezes, judges, raises and clears findings.

A finding is raised at the first violation and cleared when `CLEAR_AFTER` values in a row have broken no rule.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics import changepoint
from analytics.baseline import Screening
from analytics.charts import Judgement, make_bank
from analytics.charts.residual import brought_up
from analytics.config import COUNT_KINDS, MIN_BASELINE, XBAR_KINDS, ChartConfig, span_ns
from analytics.findings import FindingBook
from analytics.limits import Design, Estimate
from analytics.limitsets import LimitSets, runs
from analytics.recipes import Recipes
from analytics.seen import Seen, Watch, span
from analytics.state import grow, pack, unpack
from analytics.subgroups import Subgroups
from analytics.versions import Asked, Frozen, NotGrantedError, Versions, Wish
from fieldlab.model import ChartPoint, Finding, Limits, Place, SignalInfo, SignalKey
from fieldlab.model.finding import finding_id
from fieldlab.model.record import Row

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Feeder = Literal["part", "window", "reading"]

CLEAR_AFTER: dict[Feeder, int] = {"part": 2, "window": 3, "reading": 10}
POINT_EVERY_NS = 1_000_000_000  # at most one chart point a second per signal, and every violation
GAP = 10  # mean intervals between values: behind a longer one, what came before predicts nothing
CALM_ATTEMPTS = 3  # after a refusal for resemblance, so many screenings in a row must pass: chance passes one alone

_VERSION, _COUNT, _OPEN, _INSIDE, _POINT, _CALM, _CLEAR, _BEGAN, _FED, _NEWEST, _EVERY, _PRIMED = range(12)
_BEYOND = "is {side} the control limit"
_RULE_WORDS = {  # rule → (words, side is above/below instead of upper/lower, how far out its line stands)
    "1": (_BEYOND, True, 1.0),
    "2": ("is the second of three beyond two thirds of the way to the {side} limit", False, 2 / 3),
    "3": ("is the fourth of five beyond a third of the way to the {side} limit", False, 1 / 3),
    "4": ("is the eighth in a row {side} the centre line", True, 0.0),
    "nelson-1": (_BEYOND, True, 1.0),
    "nelson-2": ("is the ninth in a row {side} the centre line", True, 0.0),
    "nelson-3": ("is the sixth in a row steadily up or down", True, 0.0),
    "nelson-4": ("is the fourteenth in a row that alternates up and down", True, 0.0),
    "nelson-5": ("is the second of three beyond two thirds of the way to the {side} limit", False, 2 / 3),
    "nelson-6": ("is the fourth of five beyond a third of the way to the {side} limit", False, 1 / 3),
    "nelson-7": ("is the fifteenth in a row within a third of the limits: calmer than chance", True, 1 / 3),
    "nelson-8": ("is the eighth in a row on both sides, none within a third of the limits", True, 1 / 3),
    "ewma": ("is {side} the control limit of the moving average", True, 1.0),
    "cusum": ("is the sum of deviations, {side} its limit", True, 1.0),
    "spread": ("is {side} the control limit of the spread within subgroups", True, 1.0),
}


_PLOTTED = {"residual": "residual of ", "short-run": "deviation from nominal of ", "cusum": "cusum of "}


class Outlet(msgspec.Struct):
    """What a runner needs of the engine: the rows so far, the book of findings, and what is known.

    Attributes:
        recipes: what recipe, tool or program runs.
        part_start: when the part started whose end (ns) is given.
        why: what happened on a machine around the time of a change (ns, and now), in words.
        share: ARL0 of a channel (its signal, mean ns between its values) that shares the false alarms of its machine;
            None if no chart does.
    """

    emit: Callable[[SignalKey, int, Row], None]
    book: FindingBook
    part_at: Callable[[SignalKey, int], str]
    info: Callable[[SignalKey], SignalInfo]
    makes_parts: Callable[[SignalKey], bool]
    watch: Watch | None = None
    share: Callable[[SignalKey, float], float | None] = lambda _key, _interval: None
    recipes: Recipes = msgspec.field(default_factory=Recipes)
    part_start: Callable[[SignalKey, int], int] = lambda _key, end: end
    why: Callable[[Place, int, int], str] = lambda _place, _change, _now: ""


class _Round(NamedTuple):
    """Items of which each channel has at most one: their rows in the call, and event times of their last and first."""

    rows: NDArray[np.intp]
    channel: NDArray[np.intp]
    time: Ints
    began: Ints
    items: Floats

    def of(self, use: NDArray[np.bool_]) -> "_Round":
        """Those in `use`."""
        return _Round(self.rows[use], self.channel[use], self.time[use], self.began[use], self.items[use])


class ChartRunner:
    """One chart. A channel is one signal under it; with `limits_by`, one signal under one recipe.

    Attributes:
        versions: every version of frozen limits.
    """

    def __init__(self, config: ChartConfig, outlet: Outlet) -> None:
        self.config = config
        self.name = config.label
        self.bank = make_bank(config)
        self.keys: list[SignalKey] = []
        self.feeders: list[str] = []  # "part", "reading", or the window's width
        self.limits: list[Limits | None] = []
        self.channel: dict[SignalKey, int] = {}
        self.versions = Versions()
        self._sets = LimitSets()
        self._causes: list[str] = []
        self._known = {(given.signal, given.recipe): given for given in config.known}
        self._out = outlet
        self._state = np.zeros((0, 12), np.int64)
        self._width = len(self.bank.columns)
        self._values = np.zeros((0, config.baseline, self._width))
        self._recent = changepoint.Recent()
        self._by_statistic = config.kind in ("residual", "short-run", *COUNT_KINDS)  # what tells when it changed
        self._learning = 0
        spread: Literal["range", "std"] = "range" if config.kind == "xbar-r" else "std"
        self._groups = Subgroups(config.subgroup, spread) if config.kind in XBAR_KINDS and config.subgroup else None
        self.unusable = 0  # values that made no sense for this kind of chart, such as a count above its sample's size

    def add(self, key: SignalKey, feeder: str) -> int:
        """The channel of a signal; a new one, or one that starts afresh if another thing feeds it now."""
        channel = self.channel.get(key)
        if channel is None:
            channel = self.channel[key] = self._new(key, feeder)
        elif self.feeders[channel] != feeder:
            self.versions.retire(key)
            for each in self._sets.all_of(channel):
                self._start(each, feeder)
        return channel

    def _new(self, key: SignalKey, feeder: str) -> int:
        channel = len(self.keys)
        self.keys.append(key)
        self.feeders.append(feeder)
        self.limits.append(None)
        self._causes.append("")
        self._start(channel, feeder)
        return channel

    def _start(self, channel: int, feeder: str) -> None:
        """Let a channel learn from its next value on."""
        rows = len(self.keys)
        self.bank.grow(rows)
        self._recent.grow(rows)
        self._recent.expect(channel, 0.0, 0.0)
        self._state, self._values = grow(self._state, rows), grow(self._values, rows)
        if self._groups is not None:
            self._groups.grow(rows)
            self._groups.forget(channel)
        self._state[channel] = 0
        self._state[channel, _POINT] = -(2**62)
        kind: Feeder = feeder if feeder in ("part", "reading") else "window"  # type: ignore[assignment]  # mypy keeps str
        self._state[channel, _CLEAR] = CLEAR_AFTER[kind]
        self.feeders[channel], self.limits[channel], self._causes[channel] = feeder, None, ""
        self._learning = sum(found is None for found in self.limits)

    def chosen(self, channel: int) -> list[Limits | None]:
        """The limits of each recipe of a signal, as they are or will be in force when it runs."""
        return [self.limits[c] for c in self._sets.all_of(channel)]

    def channels_on(self, place: Place) -> int:
        """How many charts this is on a machine."""
        return sum(key.place == place for key in self.channel)

    def plotted(self) -> list[tuple[SignalKey, int]]:
        """The signals that have limits, and the channel of each."""
        return list(self.channel.items())

    def in_force(self, channel: int) -> Limits | None:
        """The limits by which a signal is judged now; None while they are learned."""
        return self.limits[self._sets.in_force(channel)]

    def close(self, key: SignalKey, time: int, why: str) -> None:
        """Clear what is open on a signal, because its chart is gone or starts afresh."""
        row = self._out.book.clear((key.place.path, key.name, self.name), time, why)
        if row is not None:
            self._out.emit(key, time, row)

    def feed(
        self, channel: NDArray[np.intp], time: Ints, value: Floats, part: str | None = None, extra: Floats | None = None
    ) -> NDArray[np.uint16]:
        """Take finite values in event order.

        Args:
            channel: whose value each is, (n,); the same channel may come several times.
            time: event time, ns, (n,).
            value: (n,).
            part: the part that was made, if the values are features of one.
            extra: what else an item of this kind consists of, (n, columns - 1); see `ChartBank.columns`.

        Returns:
            The rules that each value broke, (n,); 0 while learning, and for all but the last value of a subgroup.
        """
        if not self.config.limits_by or len(channel) == 0:
            return self._feed(channel, time, value, part, extra)
        broke = np.zeros(len(channel), np.uint16)
        rows, to = self._by_recipe(channel, time)
        for piece in runs(channel[rows], to):
            these, ours = rows[piece], to[piece]
            for row, now in zip(these.tolist(), ours.tolist(), strict=True):
                if self._sets.in_force(int(channel[row])) != now:
                    self._switch(int(channel[row]), now, int(time[row]))
            broke[these] = self._feed(ours, time[these], value[these], part, None if extra is None else extra[these])
        return broke

    def _by_recipe(self, channel: NDArray[np.intp], time: Ints) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows whose recipe is known, and the channel of each. A window that spans a change belongs to neither."""
        rows: list[int] = []
        to: list[int] = []
        for c, t in enumerate(time.tolist()):
            base = int(channel[c])
            key, feeder = self.keys[base], self.feeders[base]
            width = 0 if feeder in ("part", "reading") else span_ns(feeder)
            # a part runs by what is set when it starts; a window ends where the next begins
            at = self._out.part_start(key, t) if feeder == "part" else t - 1 if width else t
            recipe, since = self._out.recipes.at(key.place, self.config.limits_by, at)
            mixed = width and since > t - width
            if not recipe or mixed:
                self.unusable += 1
                continue
            rows.append(c)
            to.append(self._sets.channel(base, recipe, lambda b: self._new(self.keys[b], self.feeders[b])))
        return np.array(rows, np.intp), np.array(to, np.intp)

    def _switch(self, channel: int, to: int, time: int) -> None:
        """Another recipe runs: its limits are in force now, and what was open is over."""
        before = self._sets.put(channel, to)
        self._state[before, _OPEN] = self._state[before, _INSIDE] = 0
        self.close(self.keys[channel], time, f"{self._sets.recipe(to)} runs now: its limits are in force")

    def _feed(
        self, channel: NDArray[np.intp], time: Ints, value: Floats, part: str | None, extra: Floats | None
    ) -> NDArray[np.uint16]:  # fmt: skip
        broke = np.zeros(len(channel), np.uint16)
        if len(channel) == 0:
            return broke
        items = value[:, None]
        if self._groups is None and self._width > 1:
            items = np.column_stack([value, self._sizes(len(value)) if extra is None else extra])
        for turn in rounds(channel):
            round_ = _Round(turn, channel[turn], time[turn], time[turn], items[turn])
            if self._groups is not None:
                done, x, began = self._groups.add(round_.channel, round_.time, value[turn])
                round_ = _Round(turn[done], channel[turn[done]], time[turn[done]], began, x)
            if self._width > 1:
                use = self.bank.usable(round_.items)
                self.unusable += int(np.count_nonzero(~use))
                round_ = round_.of(use)
            if self._learning:
                if self._known:
                    self._bring(round_.of(self._state[round_.channel, _VERSION] == 0))
                known = self._state[round_.channel, _VERSION] > 0
                if not known.all():
                    self._learn(round_.of(~known))
                    round_ = round_.of(known)
            if len(round_.rows):
                broke[round_.rows] = self._judge(round_, part)
        return broke

    def _sizes(self, count: int) -> Floats:
        """The size of samples that no signal says: `n`; one area of a c chart."""
        return np.full((count, 1), float(self.config.n or 1) if self.config.kind in COUNT_KINDS else np.nan)

    def _judge(self, now: _Round, part: str | None) -> NDArray[np.uint16]:
        ch, time, began = now.channel, now.time, now.began
        self._values[ch, self._state[ch, _COUNT]] = now.items  # the newest, in a ring: for limits anew
        self._state[ch, _COUNT] = (self._state[ch, _COUNT] + 1) % self.config.baseline
        found = self._behind_a_gap(ch, time, self.bank.update(ch, now.items if self._width > 1 else now.items[:, 0]))
        self._recent.add(ch, time, found.statistic if self._by_statistic else now.items[:, 0])
        state, broken = self._state, found.violation > 0
        was_open = state[ch, _OPEN] > 0
        inside = np.where(was_open & ~broken, state[ch, _INSIDE] + 1, 0)
        state[ch, _INSIDE] = inside
        for i in np.flatnonzero(broken & ~was_open).tolist():
            self._raise(int(ch[i]), int(time[i]), int(began[i]), found, i, part)
        for i in np.flatnonzero(was_open & (inside >= state[ch, _CLEAR])).tolist():
            c, t = int(ch[i]), int(time[i])
            state[c, _OPEN] = state[c, _INSIDE] = 0
            self._recent.forget(c)
            self.close(self.keys[c], t, f"back inside for {state[c, _CLEAR]} values")
        if self._out.watch is not None:
            self._show(ch, time, began, found.statistic, found.lcl, found.ucl, found.violation)
        show = broken | (time - state[ch, _POINT] >= POINT_EVERY_NS)
        for i in np.flatnonzero(show).tolist():
            c, t, limits = int(ch[i]), int(time[i]), self.limits[int(ch[i])]
            state[c, _POINT] = t
            center = limits.center if limits is not None else 0.0
            self._point(c, t, float(found.statistic[i]), (center, float(found.ucl[i]), float(found.lcl[i])))
            if found.spread is not None:
                s = found.spread
                lines = float(s.center[i]), float(s.ucl[i]), float(s.lcl[i])
                self._point(c, t, float(s.statistic[i]), lines, f"{self.name} spread")
        return found.violation

    def _behind_a_gap(self, ch: NDArray[np.intp], time: Ints, found: Judgement) -> Judgement:
        """What was found; without the violations of values that a model predicts from others of before a gap."""
        state = self._state
        gap = (time - state[ch, _NEWEST] > GAP * state[ch, _EVERY]) & (state[ch, _NEWEST] > 0)
        state[ch, _NEWEST] = time
        if self.config.kind != "residual":
            return found
        state[ch[gap], _PRIMED] = self.config.lags
        unsure = state[ch, _PRIMED] > 0
        state[ch[unsure], _PRIMED] -= 1
        return (
            msgspec.structs.replace(found, violation=np.where(unsure, np.uint16(0), found.violation))
            if unsure.any()
            else found
        )

    def _raise(self, channel: int, time: int, began: int, found: Judgement, i: int, part: str | None) -> None:
        key, limits, feeder = self.keys[channel], self.limits[channel], self.feeders[channel]
        if limits is None:  # only frozen channels are judged
            return
        mask = int(found.violation[i])
        rule = next(r for n, r in enumerate(self.bank.rule_names) if mask >> n & 1)
        # a window ends where the next begins: its finding belongs to the part of its last moment
        start, last = (began, time) if feeder in ("part", "reading") else (began - span_ns(feeder), time - 1)
        center, statistic = limits.center, float(found.statistic[i])
        lcl, ucl = float(found.lcl[i]), float(found.ucl[i])
        if rule == "spread" and found.spread is not None:
            center, statistic = float(found.spread.center[i]), float(found.spread.statistic[i])
            lcl, ucl = float(found.spread.lcl[i]), float(found.spread.ucl[i])
        words, above, share = _RULE_WORDS[rule]
        up = statistic > center
        limit = center + ((ucl if up else lcl) - center) * share
        side = ("above" if up else "below") if above else ("upper" if up else "lower")
        unit = f" {self._out.info(key).unit}".rstrip()
        what = key.name if feeder == "reading" else f"{self.config.feature_words} of {key.name}"
        what = _PLOTTED.get(self.config.kind, "") + what
        detail = (
            f"{what}: {statistic:.6g}{unit} {words.format(side=side)} ({limit:.6g}{unit}; "
            f"centre {center:.6g}, sigma {limits.sigma:.3g}, limits version {limits.version})"
        )
        if rule != "spread":
            change = self._recent.change(channel)
            detail += changepoint.words(change, sigmas=self.config.kind not in COUNT_KINDS)
            detail += self._out.why(key.place, change.time if change else time, time)
        finding = Finding(
            time=time, place=key.place, signal=key.name, chart=self.name, rule=rule,
            id=finding_id(key.place, key.name, self.name, rule, time, limits.version),
            statistic=statistic, limit=limit, limits_version=limits.version,
            part=self._out.part_at(key, last) if part is None else part, detail=detail,
        )  # fmt: skip
        self._state[channel, _OPEN], self._state[channel, _INSIDE] = 1, 0
        book = self._out.book
        self._out.emit(key, time, book.raise_(finding, remember=self._out.makes_parts(key), start=start))

    def _point(
        self, channel: int, time: int, statistic: float, lines: tuple[float, float, float] | None, chart: str = ""
    ) -> None:
        """Emit a point; `lines` are centre, upper and lower limit in force."""
        key, limits, name = self.keys[channel], self.limits[channel], chart or self.name
        if limits is None or lines is None:
            point = ChartPoint(time=time, place=key.place, signal=key.name, chart=name, statistic=statistic)
        else:
            center, ucl, lcl = lines
            point = ChartPoint(
                time=time, place=key.place, signal=key.name, chart=name, statistic=statistic,
                center=center, ucl=ucl, lcl=lcl, limits_version=limits.version,
            )  # fmt: skip
        self._out.emit(key, time, point)

    def _show(
        self,
        ch: NDArray[np.intp],
        time: Ints,
        began: Ints,
        statistic: Floats,
        lcl: Floats,
        ucl: Floats,
        violation: NDArray[np.uint16],
    ) -> None:
        feeder = self.feeders[int(ch[0])]
        width = 0 if feeder in ("part", "reading") else span_ns(feeder)
        names = [self.keys[c].name for c in ch.tolist()]
        if self._out.watch is not None:
            first, last = span(feeder, width, time)
            if self._groups is not None and feeder != "part":
                first = span(feeder, width, began)[0]
            self._out.watch(Seen(self.name, first, last, statistic, lcl, ucl, violation, names))

    def _learn(self, now: _Round) -> None:
        ch, time, began, items = now.channel, now.time, now.began, now.items
        state, value = self._state, items[:, 0]
        if self._out.watch is not None:
            unknown = np.full(len(ch), np.nan)
            self._show(ch, time, began, value, unknown, unknown, np.zeros(len(ch), np.uint16))
        self._values[ch, state[ch, _COUNT]] = items
        state[ch, _COUNT] += 1
        new = state[ch, _FED] == 0
        state[ch[new], _BEGAN] = time[new]
        state[ch, _FED] += 1
        for i in np.flatnonzero(time - state[ch, _POINT] >= POINT_EVERY_NS).tolist():
            state[ch[i], _POINT] = time[i]
            self._point(int(ch[i]), int(time[i]), float(value[i]), None)
        for i in np.flatnonzero(state[ch, _COUNT] == self.config.baseline).tolist():
            self._try_freeze(int(ch[i]), int(time[i]))

    def _try_freeze(self, channel: int, time: int) -> None:
        state, values = self._state[channel], self._values[channel]
        items = values if self._width > 1 else values[:, 0]
        found = self.bank.screen(items)
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
        interval = (time - int(state[_BEGAN])) / max(int(state[_FED]) - 1, 1)
        state[_COUNT], state[_NEWEST], state[_EVERY] = 0, time, max(round(interval), 1)
        self.close(self.keys[channel], time, "the baseline is fit now: limits are frozen")
        self._freeze(channel, values, found, time)
        self._causes[channel] = ""
        self._learning -= 1

    def _freeze(self, channel: int, values: Floats, found: Screening, time: int, by: str = "") -> None:
        """Design and freeze limits on screened items, (n, columns): a new version."""
        key, items = self.keys[channel], values if self._width > 1 else values[:, 0]
        kept = found.kept if self.bank.drops_outliers else np.ones(len(items), bool)
        estimate = msgspec.structs.replace(self.bank.estimate(items[kept]), phi=found.phi)
        every = float(self._state[channel, _EVERY])
        shared = None if self.config.design_arl0 else self._out.share(key, every)
        design = self.bank.design(estimate, shared)
        note = self._note(values[:, 0], found, estimate, design, shared)
        self._put_in_force(channel, estimate, design, note, time, by)

    def _put_in_force(
        self, channel: int, estimate: Estimate, design: Design, note: str, time: int, by: str
    ) -> None:  # fmt: skip
        key, lines = self.keys[channel], self.bank.freeze(channel, estimate, design)
        self._recent.expect(channel, lines.center if self._by_statistic else estimate.center, estimate.sigma)
        limits = Limits(
            version=self.versions.next(key), center=lines.center, ucl=lines.ucl, lcl=lines.lcl, sigma=estimate.sigma,
            n=estimate.n, time=time, note=note, recipe=self._sets.recipe(channel), by=by,
        )  # fmt: skip
        self.versions.add(key, Frozen(limits, estimate, design))
        self.limits[channel] = limits
        self._state[channel, _VERSION] = limits.version

    def _bring(self, now: _Round) -> None:
        """Put the limits of `limits_file` in force for channels that have none yet."""
        for channel, time in zip(now.channel.tolist(), now.time.tolist(), strict=True):
            given = self._known.get((self.keys[channel].short, self._sets.recipe(channel)))
            if given is None:
                continue
            estimate = Estimate(given.center, given.sigma, given.n)
            design = self.bank.design(estimate, None)
            told = f"{given.n} values elsewhere" if given.n else "known values"
            note = f"from `limits_file`: {told}; one false alarm in {design.arl0:.0f} values by design"
            self._put_in_force(channel, estimate, design, note, time, "limits_file")
            self._values[channel] = np.nan
            self._state[channel, [_COUNT, _NEWEST, _EVERY]] = 0, time, 1
            self._learning -= 1

    def wish(self, wish: Wish, time: int, by: str) -> list[Asked]:
        """Freeze limits anew, or bring a version back, where a person asks for it."""
        answers = []
        for key, base in self.channel.items():
            if wish.signal and wish.signal != key.path and not fnmatchcase(key.short, wish.signal):
                continue
            for channel in self._sets.all_of(base):
                recipe = self._sets.recipe(channel)
                if channel != self._sets.in_force(base) if wish.recipe is None else recipe != wish.recipe:
                    continue
                try:
                    done, words = True, self._grant(channel, wish, by)
                except NotGrantedError as e:
                    done, words = False, str(e)
                limits = self.limits[channel]
                version = limits.version if limits else 0
                answers.append(Asked(wish.id, time, by, self.name, key.path, recipe, done, words, version))
        return answers

    def _grant(self, channel: int, wish: Wish, by: str) -> str:
        """Grant a wish: what was done, in words.

        Raises:
            NotGrantedError: if it makes no sense.
        """
        key, limits, state = self.keys[channel], self.limits[channel], self._state[channel]
        newest = int(state[_NEWEST])
        if wish.version is not None:
            kept = self.versions.find(key, wish.version)
            if kept is None:
                raise NotGrantedError(f"there is no version {wish.version}, or it is not kept any more")
            if kept.estimate is None or kept.design is None or limits is None:
                raise NotGrantedError(f"version {wish.version} is of another configuration of the chart")
            if kept.limits.recipe != self._sets.recipe(channel):
                raise NotGrantedError(f"version {wish.version} is of {kept.limits.recipe or 'no recipe'}")
            if limits.version == wish.version:
                raise NotGrantedError(f"version {wish.version} is in force already")
            estimate = kept.estimate
            if self.config.kind == "residual":
                estimate = brought_up(estimate, self._newest(channel)[:, 0], self.config.lags)
            lines = self.bank.freeze(channel, estimate, kept.design)
            self._recent.expect(channel, lines.center if self._by_statistic else estimate.center, estimate.sigma)
            self.limits[channel] = kept.limits
            state[_VERSION] = wish.version
            done = f"version {wish.version} is back in force"
        else:
            if limits is None:
                raise NotGrantedError(
                    f"limits are still being learned: {state[_COUNT]} of {self.config.baseline} values"
                )
            values = self._newest(channel) if wish.items is None else np.array(wish.items, float)
            if np.isnan(values).any():
                raise NotGrantedError(f"fewer than {self.config.baseline} values since the limits of the file")
            if values.ndim != 2 or values.shape[1] != self._width or len(values) < MIN_BASELINE:
                raise NotGrantedError(f"{len(values)} values are too few; at least {MIN_BASELINE} are needed")
            found = self.bank.screen(values if self._width > 1 else values[:, 0])
            if found.cause and (self.config.on_unstable == "refuse" or found.cause == "constant"):
                raise NotGrantedError(f"these values are no baseline: {found.words}")
            self._freeze(channel, values, found, newest, by)
            done = f"version {state[_VERSION]} is frozen"
        state[_OPEN] = state[_INSIDE] = 0
        self.close(key, newest, f"{done}, asked for by {by or 'unknown'}")
        return done

    def collected(self, key: SignalKey, recipe: str | None) -> list[list[float]]:
        """The baseline of a signal so far, oldest first, (n, columns)."""
        base = self.channel[key]
        mine = [c for c in self._sets.all_of(base) if recipe is not None and self._sets.recipe(c) == recipe]
        channel = self._sets.in_force(base) if recipe is None else mine[0] if mine else None
        if channel is None or self.limits[channel] is not None:
            return []
        found: list[list[float]] = self._values[channel, : int(self._state[channel, _COUNT])].tolist()
        return found

    def _newest(self, channel: int) -> Floats:
        """The newest items of a frozen channel, as many as a baseline has, oldest first."""
        return np.roll(self._values[channel], -int(self._state[channel, _COUNT]), axis=0)

    def _note(self, values: Floats, found: Screening, estimate: Estimate, design: Design, shared: float | None) -> str:
        """How limits were designed, in words; what was left out is named."""
        each = "subgroups" if self.config.kind in XBAR_KINDS else "values"
        note = f"learned from {estimate.n} {each}; one false alarm in {design.arl0:.0f} {each} by design"
        if shared is not None:
            note += ", its share of the machine's"
            short = design.arl0 < 0.99 * shared
            note += f" (which would be {shared:.0f}: its rules allow no more)" if short else ""
        if self.config.kind in ("residual", "cusum", "short-run"):
            note += f"; values are at {np.mean(values):.6g} on average"
        if estimate.phi > 0:
            note += f"; widened for a lag-1 correlation of {estimate.phi:.2f}"
        left = values[~found.kept]
        if len(left):
            told = ", ".join(f"{x:.6g}" for x in left[:5].tolist()) + (", …" if len(left) > 5 else "")
            did = "left out" if self.bank.drops_outliers else "kept, because the values behind them need them"
            note += f"; {len(left)} outliers {did}: {told}"
        return note + (f"; frozen although {found.words}" if found.cause else "")

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
        """State as plain values."""
        return {
            "keys": [msgspec.to_builtins(k) for k in self.keys],
            "feeders": list(self.feeders),
            "limits": [msgspec.to_builtins(found) for found in self.limits],
            "causes": list(self._causes),
            "state": pack(self._state),
            "values": pack(self._values[: len(self.keys)]),
            "versions": self.versions.save(),
            "sets": self._sets.save(),
            "groups": self._groups.save() if self._groups else None,
            "unusable": self.unusable,
            "recent": self._recent.save(),
            "bank": self.bank.save(),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self.keys = [msgspec.convert(k, SignalKey) for k in saved["keys"]]
        self.channel = {}
        for i, key in enumerate(self.keys):
            self.channel.setdefault(key, i)
        self.versions.load(saved["versions"])
        self._sets.load(saved["sets"])
        self.feeders, self._causes = list(saved["feeders"]), list(saved["causes"])
        self.limits = [msgspec.convert(found, Limits | None) for found in saved["limits"]]
        self._state = unpack(saved["state"])
        self._values = np.zeros((len(self._state), self.config.baseline, self._width))
        self._values[: len(self.keys)] = unpack(saved["values"])
        self._learning = sum(found is None for found in self.limits)
        self._recent.load(saved["recent"])
        self.bank.load(saved["bank"])
        self.unusable = saved["unusable"]
        if self._groups is not None:
            self._groups.load(saved["groups"])


def rounds(channel: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Rows in rounds: each channel at most once a round, its values in order over the rounds."""
    order = np.argsort(channel, kind="stable")
    ranked = channel[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ranked)) + 1])
    if len(starts) == len(channel):
        return [np.arange(len(channel))]
    turn = np.arange(len(channel)) - np.repeat(starts, np.diff(np.append(starts, len(channel))))
    by_turn = order[np.argsort(turn, kind="stable")]
    return np.split(by_turn, np.cumsum(np.bincount(turn))[:-1])
