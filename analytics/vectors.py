"""Runs one multivariate chart: forms vectors, learns, freezes, judges, raises and clears findings.

Values of one machine that share a time are one vector. A channel that is missing in a vector is filled with what the
others let expect (its conditional mean in the baseline), so that it adds nothing of its own; a vector with fewer than
half of the channels is passed over, and counted. Points and findings have the signal `_all`. A chart with several
statistics plots the largest of statistic / limit, whose limit is 1; the finding's rule says which it was.
"""

from fnmatch import fnmatchcase
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.changepoint import stamp
from analytics.charts import make_vector_kind
from analytics.config import ChartConfig, span_ns
from analytics.limits import SHEWHART_ARL0
from analytics.runner import CLEAR_AFTER, POINT_EVERY_NS, Outlet
from analytics.seen import Seen, span
from analytics.state import pack, unpack
from analytics.vectormodel import FrozenModel, Learned, Refused, learn
from analytics.versions import Asked, Frozen, NotGrantedError, Versions, Wish
from fieldlab.model import ChartPoint, Finding, Limits, Place, SignalKey
from fieldlab.model.finding import finding_id

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ALL = "_all"
_NAMED = 3  # contributors that are told
_LEAST_SHARE = 0.05


class _Group(msgspec.Struct):
    """One machine under the chart."""

    place: Place
    names: list[str] = []  # of the columns
    feeder: str = ""
    learned: int = 0  # vectors of the baseline; then where the next one goes in the ring
    began: int = 0  # event time of the first vector of the baseline
    fed: int = 0  # vectors since
    open: bool = False
    inside: int = 0
    newest: int = 0  # event time of the newest vector that was judged
    point: int = -(2**62)
    cause: str = ""
    limits: Limits | None = None

    @property
    def key(self) -> SignalKey:
        """Whose points and findings these are."""
        return SignalKey(self.place, ALL)


class _Rows:
    """What the watch is told of a run of vectors."""

    def __init__(self) -> None:
        self.time: list[int] = []
        self.statistic: list[float] = []
        self.limit: list[float] = []
        self.broken: list[int] = []
        self.who: list[str] = []

    def add(self, time: int, statistic: float, limit: float, broken: int, who: str) -> None:
        """One vector."""
        for column, value in zip(
            (self.time, self.statistic, self.limit, self.broken, self.who),
            (time, statistic, limit, broken, who),
            strict=True,
        ):
            column.append(value)  # type: ignore[attr-defined]  # five lists of five types


class VectorRunner:
    """One multivariate chart, on every machine that its globs name. A channel is one signal under it."""

    def __init__(self, config: ChartConfig, outlet: Outlet) -> None:
        self.config = config
        self.name = config.label
        self.keys: list[SignalKey] = []
        self.feeders: list[str] = []
        self.channel: dict[SignalKey, int] = {}
        self.limits: list[Limits | None] = []  # frozen limits of each channel: those of its machine
        self._out = outlet
        self._kind = make_vector_kind(config)
        self._rate = 1.0 / (config.design_arl0 or SHEWHART_ARL0)
        self._groups: list[_Group] = []
        self._models: list[FrozenModel | None] = []
        self._values: list[
            Floats
        ] = []  # of each group, (baseline, columns): the baseline so far; then the newest, in a ring
        self._where: list[tuple[int, int]] = []  # channel → group, column
        self.versions = Versions()

    def add(self, key: SignalKey, feeder: str) -> int:
        """The channel of a signal. A signal that is new after the freeze is not used; another feeder starts afresh."""
        g = next((i for i, group in enumerate(self._groups) if group.place == key.place), len(self._groups))
        if g == len(self._groups):
            self._groups.append(_Group(key.place, feeder=feeder))
            self._models.append(None)
            self._values.append(np.zeros((self.config.baseline, 0)))
        group, channel = self._groups[g], self.channel.get(key)
        if group.feeder != feeder:
            group.feeder, group.limits, group.learned, group.cause = feeder, None, 0, ""
            group.open, group.inside, group.point = False, 0, -(2**62)
            self._models[g] = None
            self.versions.retire(group.key)
            self._values[g] = np.full((self.config.baseline, len(group.names)), np.nan)
            self._tell_limits()
        if channel is None:
            channel = self.channel[key] = len(self.keys)
            self.keys.append(key)
            self.feeders.append(feeder)
            self._where.append((g, len(group.names)))
            group.names.append(key.name)
            self.limits.append(group.limits)
            if self._models[g] is None:
                before = self._values[g]
                self._values[g] = np.column_stack([before, np.full(len(before), np.nan)])
        self.feeders[channel] = feeder
        return channel

    def channels_on(self, place: Place) -> int:
        """How many charts this is on a machine: one."""
        return int(any(group.place == place for group in self._groups))

    def plotted(self) -> list[tuple[SignalKey, int]]:
        """What has limits: `_all` of each machine, and one of its channels."""
        first = {g: channel for channel, (g, _) in reversed(list(enumerate(self._where)))}
        return [(group.key, first[g]) for g, group in enumerate(self._groups) if g in first]

    def in_force(self, channel: int) -> Limits | None:
        """The limits by which a signal is judged now; None while they are learned."""
        return self.limits[channel]

    def chosen(self, channel: int) -> list[Limits | None]:
        """The same: there are no recipes here."""
        return [self.limits[channel]]

    def close(self, key: SignalKey, time: int, why: str) -> None:
        """Clear what is open on a signal's machine, because its chart is gone or starts afresh."""
        row = self._out.book.clear((key.place.path, ALL, self.name), time, why)
        if row is not None:
            self._out.emit(SignalKey(key.place, ALL), time, row)

    def feed(self, channel: NDArray[np.intp], time: Ints, value: Floats, part: str | None = None) -> NDArray[np.uint16]:
        """Take finite values, by machine and then time: those of one machine that share a time are one vector.

        Returns:
            Zeros (n,): what a vector breaks is no single value's.
        """
        where = np.array(self._where, np.intp).reshape(-1, 2)[channel]
        for g in np.unique(where[:, 0]).tolist():
            mine = where[:, 0] == g
            times, row = np.unique(time[mine], return_inverse=True)
            vectors = np.full((len(times), len(self._groups[g].names)), np.nan)
            vectors[row, where[mine, 1]] = value[mine]
            self._take(g, times, vectors, part)
        return np.zeros(len(channel), np.uint16)

    def _take(self, g: int, times: Ints, vectors: Floats, part: str | None) -> None:
        rows = _Rows()
        for t, x in zip(times.tolist(), vectors, strict=True):
            if self._models[g] is None:
                self._learn(g, t, x)
                rows.add(t, np.nan, np.nan, 0, "")
            else:
                self._judge(g, t, x, part, rows)
        if self._out.watch is not None and rows.time:
            feeder = self._groups[g].feeder
            first, last = span(feeder, 0 if feeder == "reading" else span_ns(feeder), np.array(rows.time, np.int64))
            limit = np.array(rows.limit)
            seen = Seen(
                self.name, first, last, np.array(rows.statistic), np.full(len(limit), np.nan), limit,
                np.array(rows.broken, np.uint16), rows.who,
            )  # fmt: skip
            self._out.watch(seen)

    # --- judging ---

    def _judge(self, g: int, time: int, x: Floats, part: str | None, rows: _Rows) -> None:
        model, group = self._models[g], self._groups[g]
        assert model is not None
        assert group.limits is not None
        ring = self._values[g]
        if 2 * int(np.count_nonzero(np.isfinite(x))) >= len(x):
            ring[group.learned] = x[: ring.shape[1]]
            group.learned = (group.learned + 1) % self.config.baseline
        group.newest = time
        found = model.step(x)
        if found is None or not np.isfinite(found).all():
            return
        model.remember(time)
        ratio = found / model.limits
        which = int(np.argmax(ratio))
        broken = bool(ratio[which] > 1)
        statistic = float(found[0]) if len(found) == 1 else float(ratio[which])
        who = ""
        if self._out.watch is not None or (broken and not group.open):
            who = self._contributors(g, which)
        if self._out.watch is not None:
            rows.add(time, statistic, group.limits.ucl, int(broken) << which, who)
        if broken:
            group.inside = 0
            if not group.open:
                self._raise(g, time, which, float(found[which]), statistic, who, part)
        elif group.open:
            group.inside += 1
            clear_after = CLEAR_AFTER["reading" if group.feeder == "reading" else "window"]
            if group.inside >= clear_after:
                group.open, group.inside = False, 0
                model.calm()
                self.close(group.key, time, f"back inside for {clear_after} values")
        if broken or time - group.point >= POINT_EVERY_NS:
            group.point = time
            self._point(group, time, statistic)

    def _contributors(self, g: int, which: int) -> str:
        """The channels that add most, with their shares: `flow 61 %; pressure 20 %`."""
        model = self._models[g]
        assert model is not None
        share = model.contributions(which)
        best = np.argsort(-share, kind="stable")[:_NAMED]
        names = self._groups[g].names
        told = [f"{names[model.kept[i]]} {share[i] * 100:.0f} %" for i in best if share[i] >= _LEAST_SHARE]
        return "; ".join(told)

    def _raise(self, g: int, time: int, which: int, value: float, statistic: float, who: str, part: str | None) -> None:
        group, model = self._groups[g], self._models[g]
        assert group.limits is not None
        assert model is not None
        rule = self._kind.statistics[which]
        detail = (
            f"{rule} of {len(model.kept)} signals is {value:.4g}, above its limit {model.limits[which]:.4g}; "
            f"most from {who or 'no signal in particular'}; limits version {group.limits.version}"
        )
        detail += self._why(g, which, time)
        first, last = span(group.feeder, 0 if group.feeder == "reading" else span_ns(group.feeder), np.array([time]))
        finding = Finding(
            time=time, place=group.place, signal=ALL, chart=self.name, rule=rule,
            id=finding_id(group.place, ALL, self.name, rule, time, group.limits.version),
            statistic=statistic, limit=group.limits.ucl, limits_version=group.limits.version,
            part=self._out.part_at(group.key, int(last[0])) if part is None else part, detail=detail,
        )  # fmt: skip
        group.open, group.inside = True, 0
        remember = self._out.makes_parts(group.key)
        self._out.emit(group.key, time, self._out.book.raise_(finding, remember=remember, start=int(first[0])))

    def _why(self, g: int, which: int, time: int) -> str:
        """What the channels that add most say, since when, and what happened around then, in words."""
        group, model = self._groups[g], self._models[g]
        assert model is not None
        share = model.contributions(which)
        best = [int(i) for i in np.argsort(-share, kind="stable")[:_NAMED] if share[i] >= _LEAST_SHARE]
        names = [group.names[model.kept[i]] for i in best]
        units = [f" {self._out.info(SignalKey(group.place, name)).unit}".rstrip() for name in names]
        told = [model.explain(i, name, unit) for i, name, unit in zip(best, names, units, strict=True)]
        changes = sorted((model.change(i), name) for i, name in zip(best, names, strict=True))
        changed = [f"{name} since {stamp(c.time)}" for c, name in changes if c.values > 1]
        words = f"; {', '.join(told)}" if told else ""
        words += f"; most likely {', then '.join(changed)}" if changed else ""
        return words + self._out.why(group.place, changes[0][0].time if changes else time, time)

    def _point(self, group: _Group, time: int, statistic: float) -> None:
        limits = group.limits
        assert limits is not None
        point = ChartPoint(
            time=time, place=group.place, signal=ALL, chart=self.name, statistic=statistic,
            center=limits.center, ucl=limits.ucl, lcl=limits.lcl, limits_version=limits.version,
        )  # fmt: skip
        self._out.emit(group.key, time, point)

    # --- learning ---

    def _learn(self, g: int, time: int, x: Floats) -> None:
        group, values = self._groups[g], self._values[g]
        if 2 * int(np.count_nonzero(np.isfinite(x))) < len(x):
            return
        values[group.learned] = x
        group.learned += 1
        group.began = group.began if group.fed else time
        group.fed += 1
        if group.learned == self.config.baseline:
            self._try_freeze(g, time)

    def _try_freeze(self, g: int, time: int) -> None:
        group, values, n = self._groups[g], self._values[g], self.config.baseline
        interval = (time - group.began) / max(group.fed - 1, 1)
        shared = None if self.config.design_arl0 else self._out.share(group.key, interval)
        rate = 1.0 / shared if shared else self._rate
        found = learn(self._kind, values, rate, drop_drifting=self.config.drops_drifting)
        usable = found.frozen is not None and (found.refused is None or self.config.on_unstable == "warn")
        if found.refused is not None and not usable:
            self._refuse(g, time, found.refused)
            half = n // 2
            values[: n - half] = values[half:].copy()
            group.learned = n - half
            return
        self.close(group.key, time, "the baseline is fit now: limits are frozen")
        self._freeze(g, found, rate, time)
        group.cause, group.learned = "", 0

    def _freeze(self, g: int, found: Learned, rate: float, time: int, by: str = "") -> None:
        group, n, frozen = self._groups[g], self.config.baseline, found.frozen
        assert frozen is not None
        single = len(frozen.limits) == 1
        each = ", ".join(f"{s} {limit:.4g}" for s, limit in zip(self._kind.statistics, frozen.limits, strict=True))
        note = f"learned from {n} vectors of {len(frozen.kept)} signals; limits {each} for {rate:.3g} false alarms"
        note += " a vector"
        note += ", from blocks of the baseline that their model had not seen"
        note += "".join(f"; {group.names[j]} left out: it {why}" for j, why in sorted(found.dropped.items()))
        note += f"; frozen although {found.refused.words}" if found.refused else ""
        group.limits = Limits(
            version=self.versions.next(group.key), center=found.center, lcl=0.0,
            ucl=float(frozen.limits[0]) if single else 1.0, sigma=found.spread, n=n, time=time, note=note, by=by,
        )  # fmt: skip
        self._tell_limits()
        self._models[g] = frozen
        model = msgspec.msgpack.encode([frozen.save(), rate])
        self.versions.add(group.key, Frozen(group.limits, model=model))

    def wish(self, wish: Wish, time: int, by: str) -> list[Asked]:
        """Freeze limits anew, or bring a version back, where a person asks for it."""
        answers = []
        for g, group in enumerate(self._groups):
            names = [group.key, *(SignalKey(group.place, name) for name in group.names)]
            if wish.signal and not any(wish.signal == k.path or fnmatchcase(k.short, wish.signal) for k in names):
                continue
            if wish.recipe is None:
                try:
                    done, words = True, self._grant(g, wish, by)
                except NotGrantedError as e:
                    done, words = False, str(e)
                version = group.limits.version if group.limits else 0
                answers.append(Asked(wish.id, time, by, self.name, group.key.path, "", done, words, version))
        return answers

    def _grant(self, g: int, wish: Wish, by: str) -> str:
        """Grant a wish: what was done, in words.

        Raises:
            NotGrantedError: if it makes no sense.
        """
        group, values, limits = self._groups[g], self._values[g], self._groups[g].limits
        if wish.version is not None:
            kept = self.versions.find(group.key, wish.version)
            if kept is None:
                raise NotGrantedError(f"there is no version {wish.version}, or it is not kept any more")
            if not kept.model or limits is None:
                raise NotGrantedError(f"version {wish.version} is of another configuration of the chart")
            if limits.version == wish.version:
                raise NotGrantedError(f"version {wish.version} is in force already")
            saved, _ = msgspec.msgpack.decode(kept.model)
            self._models[g], group.limits = FrozenModel.load(self._kind, saved), kept.limits
            done = f"version {wish.version} is back in force"
        else:
            if limits is None:
                raise NotGrantedError(
                    f"limits are still being learned: {group.learned} of {self.config.baseline} vectors"
                )
            if wish.items is not None:
                raise NotGrantedError("a multivariate chart freezes on its newest vectors alone")
            _, rate = msgspec.msgpack.decode(self.versions.of(group.key)[-1].model)
            newest = np.roll(values, -group.learned, axis=0)
            found = learn(self._kind, newest, rate, drop_drifting=self.config.drops_drifting)
            if found.frozen is None or (found.refused is not None and self.config.on_unstable == "refuse"):
                raise NotGrantedError(f"these vectors are no baseline: {found.refused.words if found.refused else ''}")
            self._freeze(g, found, rate, group.newest, by)
            done = f"version {self.versions.next(group.key) - 1} is frozen"
        group.open, group.inside = False, 0
        self._tell_limits()
        self.close(group.key, group.newest, f"{done}, asked for by {by or 'unknown'}")
        return done

    def _refuse(self, g: int, time: int, why: Refused) -> None:
        group = self._groups[g]
        if why.cause == group.cause:
            return
        self.close(group.key, time, "another cause was found")
        group.cause = why.cause
        finding = Finding(
            time=time, place=group.place, signal=ALL, chart=self.name, rule="baseline",
            id=finding_id(group.place, ALL, self.name, "baseline", time, 0), severity="warning",
            statistic=why.figure, limit=why.bound, detail=f"limits are not frozen, learning goes on: {why.words}",
        )  # fmt: skip
        self._out.emit(group.key, time, self._out.book.raise_(finding, remember=False))

    def _tell_limits(self) -> None:
        self.limits = [self._groups[g].limits for g, _ in self._where]

    # --- saving ---

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "keys": [msgspec.to_builtins(k) for k in self.keys],
            "feeders": list(self.feeders),
            "where": [list(w) for w in self._where],
            "groups": [msgspec.to_builtins(g) for g in self._groups],
            "values": [
                pack(v if model else v[: g.learned])
                for g, v, model in zip(self._groups, self._values, self._models, strict=True)
            ],
            "versions": self.versions.save(),
            "models": [m.save() if m else None for m in self._models],
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self.keys = [msgspec.convert(k, SignalKey) for k in saved["keys"]]
        self.channel = {key: i for i, key in enumerate(self.keys)}
        self.feeders = list(saved["feeders"])
        self.versions.load(saved["versions"])
        self._where = [(g, column) for g, column in saved["where"]]
        self._groups = [msgspec.convert(g, _Group) for g in saved["groups"]]
        self._tell_limits()
        self._models = [FrozenModel.load(self._kind, m) if m else None for m in saved["models"]]
        self._values = []
        for group, packed, model in zip(self._groups, saved["values"], self._models, strict=True):
            values = unpack(packed)
            if not model:
                values = np.full((self.config.baseline, len(group.names)), np.nan)
                values[: group.learned] = unpack(packed)
            self._values.append(values)
