"""The tables `[[chart]]` and `[[part]]`, and everything that judgement is told: `AnalyticsConfig`."""

import difflib
import hashlib
import re
from collections import Counter
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from analytics.curves.config import CurveConfig
from analytics.curves.config import errors as curve_errors
from analytics.health.config import HealthConfig
from analytics.health.config import errors as health_errors
from analytics.knownlimits import KINDS as KNOWN_KINDS
from analytics.knownlimits import KnownLimits
from analytics.limits import longest_arl0
from analytics.ruleset import RuleSet
from analytics.trend_config import TrendConfig
from analytics.trend_config import errors as trend_errors
from fieldlab.model import PartEventKind, SignalInfo

VECTOR_KINDS = ("t2", "mewma", "pca", "cva")  # one chart on all its signals of a machine together
XBAR_KINDS = ("xbar-r", "xbar-s")
COUNT_KINDS = ("p", "np", "c", "u", "laney-p", "laney-u")
RULED_KINDS = ("individuals", "residual", "short-run", *XBAR_KINDS)  # symmetric charts: they take run rules
KINDS = ("individuals", *XBAR_KINDS, "ewma", "cusum", "residual", "short-run", *COUNT_KINDS, *VECTOR_KINDS)
Feature = Literal["mean", "sum", "last", "min", "max", "range", "std", "duration"]
TELLING: tuple[PartEventKind, ...] = ("measure", "inspect", "consume", "rework", "hold", "release")
MIN_BASELINE = 10
MOST_NESTED = 10_000
LARGEST_RANGE = 25  # values: beyond 10 a range says little, beyond 25 nobody has tables

_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class ChartConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[chart]]`: a control chart on each signal that it names or, if multivariate, on a machine's signals together.

    Attributes:
        name: unique; the tag `chart`. Empty: see `label`.
        kind: one of `KINDS`.
        signals: globs over `machine/signal`.
        per: what gives one charted value: `part`, a window such as `10s`, or `reading`. Empty: `part` where the machine
            has a `[[part]]`, else `10s`. Multivariate charts take windows or `reading`: readings of one
            machine that share a time form one vector.
        feature: what is charted of the readings in that window. Charts of counts take their sum.
        phase: of a part, only its readings in this phase of the cycle; see `PartConfig.phases`.
        subgroup: xbar charts: charted values in a row to a subgroup, 2 or more; 0 makes the readings of a part or
            window one subgroup, of any size. Other kinds: 1.
        baseline: values to learn limits from.
        limits_file: limits known from elsewhere, instead of a baseline; see `analytics.knownlimits`.
        known: what that file says; signals that it does not name learn from their baseline.
        rules: `western-electric`, `nelson`, or a list of rules of one of the two: `1` to `4`, `nelson-1` to
            `nelson-8`; only for `RULED_KINDS`. Empty: rule 1, the limits.
        false_alarm_rate: designed false alarms a charted value; or give `arl0`.
        arl0: designed number of in-control values to a false alarm. Absent: 370.4; what the run rules have at 3 sigma
            if there are any beyond rule 1.
        on_unstable: what to do with a baseline that is unstable or autocorrelated.
        lambda_: smoothing constant of an EWMA or MEWMA; the key is `lambda`.
        shift: the shift that a CUSUM should find, in sigmas.
        head_start: share of the limit at which both sides of a CUSUM start; 0.5 is the fast initial response.
        n: charts of counts: the size of every sample, or 0.
        size: charts of counts: the signal, `machine/signal`, that says a sample's size; in a window or part, its sum.
        recipe: short-run charts: the signal that says which recipe or part type runs.
        nominals: short-run charts: nominal value of each recipe.
        spreads: short-run charts: relative spread of each recipe; 1 if it is not there.
        limits_by: names of signals on the same machine, such as `program` or `tool`: each of what they say together has
            limits of its own, which come into force when it is said. Not for multivariate charts.
        lags: vectors that CVA looks back, and ahead while it learns; the highest order of a residual chart's model.
        drop_drifting: multivariate: leave out channels that drift in the baseline (see `analytics.channels`). Absent:
            yes, but for `cva`, which models slow channels.
    """

    name: str = ""
    kind: str = "individuals"
    signals: tuple[str, ...]
    per: str = ""
    feature: Feature = "mean"
    phase: str = ""
    subgroup: int = 1
    baseline: int = 100
    limits_file: str = ""
    known: tuple[KnownLimits, ...] = ()
    rules: str | tuple[str, ...] = ()
    false_alarm_rate: float | None = None
    arl0: float | None = None
    on_unstable: Literal["refuse", "warn"] = "refuse"
    lambda_: float = msgspec.field(default=0.2, name="lambda")
    shift: float = 1.0
    head_start: float = 0.0
    n: int = 0
    size: str = ""
    recipe: str = ""
    nominals: dict[str, float] = {}
    spreads: dict[str, float] = {}
    limits_by: tuple[str, ...] = ()
    lags: int = 3
    drop_drifting: bool | None = None

    @property
    def label(self) -> str:
        """The chart's name; made from kind and signals if it has none."""
        return self.name or f"{self.kind} {' '.join(self.signals)}"

    @property
    def rule_set(self) -> RuleSet:
        """The run rules in force.

        Raises:
            ValueError: if a rule is unknown, or two families are mixed.
        """
        return RuleSet.of((self.rules,) if isinstance(self.rules, str) else self.rules)

    @property
    def charted(self) -> Feature:
        """The feature that is charted."""
        return "sum" if self.kind in COUNT_KINDS else self.feature

    @property
    def feature_words(self) -> str:
        """The feature that is charted, as findings and reasons call it."""
        return f"{self.charted} while {self.phase}" if self.phase else self.charted

    @property
    def companion(self) -> str:
        """The signal whose value goes with each charted one: a sample's size, or the recipe; empty for none."""
        return self.recipe if self.kind == "short-run" else self.size if self.kind in COUNT_KINDS else ""

    @property
    def drops_drifting(self) -> bool:
        """Whether channels that drift in the baseline are left out."""
        return self.kind != "cva" if self.drop_drifting is None else self.drop_drifting

    @property
    def design_arl0(self) -> float | None:
        """The designed ARL0, if one is set."""
        return 1.0 / self.false_alarm_rate if self.false_alarm_rate else self.arl0


class PartConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[part]]`: how the parts of a machine are told apart. Exactly one of id, counter, state, job, part is set.

    Attributes:
        machine: the machine's name; globs allowed.
        id: signal whose change starts a new part, and whose value is its id. Empty text: no part is being made.
        counter: signal that counts parts; a change starts part `machine-<count>`.
        state: text of the signal `state` during which a part is made; its id is `machine-<start time>`.
        job: text signal with the job's name; a change starts part `<job>-<start time>`.
        part: for a station that makes no parts, instead of those four: signal that names the part at hand, which was
            made elsewhere.
        of: machines, globs allowed, that make the parts which `part` names. Empty: whichever made it last.
        genealogy: signals that ride along, such as the tool and the material lot.
        measure: numeric signals; each Good value is a `measure` event. Of a part made elsewhere it makes a new
            revision of its verdict, by the signal's specification limits.
        inspect: signals with the result of an inspection, see `analytics.partbook`.
        consume: signals that say, once each, the child parts and lots that go into the part at hand.
        rework: signals that say what is reworked; a part that is made again is reworked, too.
        hold: signals that say why a part is held; empty, 0 or false: nothing.
        release: signals that say who or what releases it.
        nested: parts that are made at once from one sheet: their number, or the signal that says it. Their ids are
            `<id>-1` and so on; they share features, and consume the sheet.
        split: parts that are made at once, such as an autoclave's load: what separates their ids in `id`, such as `,`.
        phases: signal that names the phases of a part's cycle, for charts with a `phase`.
        longest: a part that lasts longer, while readings come in, is a finding `part-id` (a warning).
        remember: parts of this machine whose verdict a later event may still revise.
    """

    machine: str
    id: str = ""
    counter: str = ""
    state: str = ""
    job: str = ""
    part: str = ""
    of: str = ""
    genealogy: tuple[str, ...] = ()
    measure: tuple[str, ...] = ()
    inspect: tuple[str, ...] = ()
    consume: tuple[str, ...] = ()
    rework: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    nested: int | str = 0
    split: str = ""
    phases: str = "state"
    longest: str = "1h"
    remember: int = 1_000

    @property
    def makes(self) -> bool:
        """Whether parts are made here; else it is a station that says things about parts made elsewhere."""
        return bool(self.id or self.counter or self.job or self.state)

    @property
    def signal(self) -> str:
        """The signal that is watched."""
        return self.id or self.counter or self.job or ("state" if self.state else self.part)

    def told_by(self, name: str) -> PartEventKind | None:
        """The kind of event that a signal tells, if any."""
        return next((kind for kind in TELLING if name in getattr(self, kind)), None)


class AnalyticsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that judgement is told; the `detail` of a `Control(action="configure")`, by `msgspec.to_builtins`.

    Attributes:
        charts: see `ChartConfig`.
        parts: see `PartConfig`; the first that fits a machine counts.
        curves: see `CurveConfig`.
        signals: what is known about signals: units, specification limits, texts of states.
        lateness: seconds that a reading may lag behind the newest of its machine and still be judged.
        false_alarms: designed false alarms a shift of all charts of a machine together that have no `arl0` or
            `false_alarm_rate` of their own; each channel has an equal share. None: each chart's own default.
        shift: how long a shift is.
        health: which sensors are checked, and how.
        trends: see `TrendConfig`; beside them, every signal with a chart and a specification limit is watched.
    """

    charts: tuple[ChartConfig, ...] = ()
    parts: tuple[PartConfig, ...] = ()
    curves: tuple[CurveConfig, ...] = ()
    signals: tuple[SignalInfo, ...] = ()
    lateness: float = 2.0
    false_alarms: float | None = None
    shift: str = "8h"
    health: HealthConfig = HealthConfig()
    trends: tuple[TrendConfig, ...] = ()

    def part_of(self, machine: str) -> PartConfig | None:
        """How the parts of a machine are told apart, if they are."""
        return next((p for p in self.parts if fnmatchcase(machine, p.machine)), None)


def config_hash(config: AnalyticsConfig) -> str:
    """16 hexadecimal digits that change with any key."""
    return hashlib.blake2b(msgspec.json.encode(config, order="deterministic"), digest_size=8).hexdigest()


def span_ns(text: str) -> int:
    """Nanoseconds of a span such as `10s`, `500ms`, `5min`.

    Raises:
        ValueError: if it is not a positive number with a unit.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)\s*", text)
    if match is None or (ns := round(float(match[1]) * _SECONDS[match[2]] * 1e9)) <= 0:
        raise ValueError(f'{text!r} is not understood; write it as "10s", "500ms" or "5min"')
    return ns


def validate(config: AnalyticsConfig) -> list[tuple[str, str]]:
    """What is wrong that types cannot say: (dotted key, what and what to do), such as `chart[0].kind`."""
    wrong: list[tuple[str, str]] = []
    for name, count in Counter(c.label for c in config.charts).items():
        if count > 1:
            at = max(i for i, c in enumerate(config.charts) if c.label == name)
            wrong.append((f"chart[{at}].name", f"{count} charts are called {name!r}; give each its own name"))
    for i, chart in enumerate(config.charts):
        wrong += [(f"chart[{i}].{key}", text) for key, text in _chart_errors(chart, config)]
    names = [c.label for c in config.charts]
    for i, curve in enumerate(config.curves):
        wrong += [(f"curve[{i}].{key}", text) for key, text in curve_errors(curve)]
        if curve.name in names:
            wrong.append((f"curve[{i}].name", f"another chart or curve is called {curve.name!r}"))
        if not set("*?[") & set(curve.machine) and not getattr(config.part_of(curve.machine), "makes", False):
            wrong.append((f"curve[{i}].machine", f"{curve.machine!r} makes no parts: add a [[part]]"))
        names.append(curve.name)
    for i, part in enumerate(config.parts):
        wrong += [(f"part[{i}].{key}", text) for key, text in _part_errors(part)]
    if config.lateness < 0:
        wrong.append(("lateness", "must not be negative"))
    if config.false_alarms is not None and not config.false_alarms > 0:
        wrong.append(("false_alarms", "must be above 0 a shift and machine"))
    try:
        span_ns(config.shift)
    except ValueError as e:
        wrong.append(("shift", str(e)))
    wrong += health_errors(config.health, span_ns)
    wrong += trend_errors(config.trends, span_ns)
    return wrong


def _chart_errors(chart: ChartConfig, config: AnalyticsConfig) -> list[tuple[str, str]]:
    wrong: list[tuple[str, str]] = []
    if chart.kind not in KINDS:
        near = difflib.get_close_matches(chart.kind, KINDS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        wrong.append(("kind", f"{chart.kind!r} is no kind of chart{hint} There are {', '.join(KINDS)}"))
        return wrong
    if not chart.signals:
        wrong.append(("signals", "names no signal; write machine/signal, globs allowed"))
    wrong += [("signals", f"{s!r} must be machine/signal") for s in chart.signals if s.count("/") != 1]
    if chart.per not in ("", "part", "reading"):
        try:
            span_ns(chart.per)
        except ValueError as e:
            wrong.append(("per", f'{e}, or "part", or "reading"'))
    if chart.per == "part":
        machines = {s.split("/")[0] for s in chart.signals}
        wrong += [
            ("per", f"machine {m!r} has no [[part]]: add one, or chart per window or per reading")
            for m in sorted(machines)
            if not set("*?[") & set(m) and config.part_of(m) is None
        ]
    if chart.phase and (chart.per not in ("", "part") or chart.kind in VECTOR_KINDS):
        wrong.append(("phase", "is one of a part: chart one signal per part"))
    if chart.limits_by and chart.kind in VECTOR_KINDS:
        wrong.append(("limits_by", f"{chart.kind} has one model for a machine; chart the signals one by one"))
    wrong += [
        ("limits_by", f"{name!r} must be the name of a signal on the chart's own machine, without the machine")
        for name in chart.limits_by
        if not name or "/" in name
    ]
    if chart.limits_file and chart.kind not in KNOWN_KINDS:
        text = f"{chart.kind} needs more than a centre and a sigma; use `baseline`, or {', '.join(KNOWN_KINDS)}"
        wrong.append(("limits_file", text))
    if chart.baseline < MIN_BASELINE:
        wrong.append(("baseline", f"{chart.baseline} values say too little; give at least {MIN_BASELINE}, better 100"))
    if not 0 < chart.lambda_ <= 1:
        wrong.append(("lambda", "must be above 0 and at most 1; usual are 0.05 to 0.3"))
    wrong += _vector_errors(chart) + _subgroup_errors(chart) + _count_errors(chart) + _kind_errors(chart)
    return wrong + _rule_errors(chart) + _rate_errors(chart)


def _subgroup_errors(chart: ChartConfig) -> list[tuple[str, str]]:
    n = chart.subgroup
    if chart.kind not in XBAR_KINDS:
        text = f'{chart.kind} charts take single values; subgroups need kind = "xbar-s" or "xbar-r"'
        return [] if n == 1 else [("subgroup", text)]
    if n == 1 or n < 0:
        return [
            ("subgroup", f"{chart.kind} needs subgroups: give 2 or more values, usual are 4 or 5 (0: a whole window)")
        ]
    if n == 0 and chart.per == "reading":
        return [
            ("subgroup", '0 makes a window or part one subgroup; `per = "reading"` has none. Give 2 or more values')
        ]
    if n == 0 and chart.kind == "xbar-r":
        return [("subgroup", 'windows differ in size, and ranges with them: use kind = "xbar-s"')]
    if chart.kind == "xbar-r" and n > LARGEST_RANGE:
        return [("subgroup", f'ranges of {n} values waste most of them (at most {LARGEST_RANGE}): use kind = "xbar-s"')]
    return []


def _count_errors(chart: ChartConfig) -> list[tuple[str, str]]:
    wrong: list[tuple[str, str]] = []
    if chart.kind not in COUNT_KINDS:
        wrong += [
            (key, f"{chart.kind} charts do not count; leave it out") for key in ("n", "size") if getattr(chart, key)
        ]
        return wrong
    if chart.n < 0:
        wrong.append(("n", "must not be negative"))
    if chart.n and chart.size:
        wrong.append(("size", "give `size` or `n`, not both"))
    if not chart.n and not chart.size and chart.kind != "c":
        wrong.append(("size", f"{chart.kind} needs the size of a sample: the signal `size`, or a constant `n`"))
    if chart.kind == "c" and chart.size:
        wrong.append(("size", 'counts of samples that differ in size need kind = "u"'))
    if chart.size.count("/") != (1 if chart.size else 0):
        wrong.append(("size", f"{chart.size!r} must be machine/signal"))
    if chart.feature != "mean":
        wrong.append(("feature", f"{chart.kind} charts the sum of the counts; leave it out"))
    return wrong


def _kind_errors(chart: ChartConfig) -> list[tuple[str, str]]:
    wrong: list[tuple[str, str]] = []
    if not 0 < chart.shift <= 6:
        wrong.append(("shift", "must be above 0 and at most 6 sigmas; usual is 1"))
    if not 0 <= chart.head_start < 1:
        wrong.append(("head_start", "must be at least 0 and below 1; 0.5 is the fast initial response"))
    if chart.kind == "residual" and not 1 <= chart.lags <= 20:
        wrong.append(("lags", "must be 1 to 20 values; usual are 1 to 3"))
    if chart.kind == "residual" and chart.baseline < 4 * chart.lags + 10:
        text = f"a model of order {chart.lags} needs {4 * chart.lags + 10} values, better 100 or more"
        wrong.append(("baseline", text))
    if chart.kind != "short-run":
        keys = ("recipe", "nominals", "spreads")
        return wrong + [(k, f"{chart.kind} charts know no recipes; leave it out") for k in keys if getattr(chart, k)]
    if chart.recipe.count("/") != 1:
        wrong.append(("recipe", 'name the signal that says which recipe runs, such as "cnc-07/program"'))
    if not chart.nominals:
        wrong.append(("nominals", "give the nominal of each recipe, such as nominals = { A = 10.0, B = 12.5 }"))
    wrong += [("spreads", f"{name!r} is not in `nominals`") for name in chart.spreads if name not in chart.nominals]
    wrong += [("spreads", f"that of {name!r} must be above 0") for name, s in chart.spreads.items() if not s > 0]
    return wrong


def _vector_errors(chart: ChartConfig) -> list[tuple[str, str]]:
    if chart.kind not in VECTOR_KINDS:
        return []
    wrong: list[tuple[str, str]] = []
    if chart.per == "part":
        wrong.append(("per", 'multivariate charts take windows such as "10s", or "reading"; parts are not built yet'))
    if not 1 <= chart.lags <= 20:
        wrong.append(("lags", "must be 1 to 20 vectors; usual are 2 to 5"))
    return wrong


def _rule_errors(chart: ChartConfig) -> list[tuple[str, str]]:
    if chart.kind in VECTOR_KINDS:
        return [("rules", f"{chart.kind} has one rule, its limit. Leave `rules` out")] if chart.rules else []
    try:
        chosen = chart.rule_set
    except ValueError as e:
        return [("rules", str(e))]
    if chart.kind not in RULED_KINDS and not chosen.limit_alone:
        why = "its values depend on each other" if chart.kind in ("ewma", "cusum") else "its limits are not symmetric"
        return [("rules", f"zone rules do not hold on {chart.kind}: {why}. Leave `rules` out")]
    return []


def _rate_errors(chart: ChartConfig) -> list[tuple[str, str]]:
    if chart.arl0 is not None and chart.false_alarm_rate is not None:
        return [("arl0", "give arl0 or false_alarm_rate, not both: one is 1 / the other")]
    if chart.false_alarm_rate is not None and not 0 < chart.false_alarm_rate < 0.5:
        return [("false_alarm_rate", "must be above 0 and below 0.5 a charted value")]
    if chart.arl0 is not None and chart.arl0 <= 2:
        return [("arl0", "must be above 2 values to a false alarm")]
    if chart.design_arl0 is None or chart.kind not in RULED_KINDS or _rule_errors(chart):
        return []
    longest = longest_arl0(chart.rule_set) * (0.5 if chart.kind in XBAR_KINDS else 1)  # the spread has its half
    if chart.design_arl0 > longest:
        key = "arl0" if chart.arl0 is not None else "false_alarm_rate"
        names = ", ".join(chart.rule_set.names[i] for i in range(8) if chart.rule_set.mask >> i & 1)
        text = f"with rules {names} no limits reach ARL0 {chart.design_arl0:.4g}; at most {longest:.4g}"
        return [(key, text)]
    return []


def _part_errors(part: PartConfig) -> list[tuple[str, str]]:
    wrong: list[tuple[str, str]] = []
    given = [key for key in ("id", "counter", "state", "job", "part") if getattr(part, key)]
    if len(given) != 1:
        words = "a machine makes parts (id, counter, state or job) or is a station that measures those of others (part)"
        wrong.append(("id", f"give exactly one of id, counter, state, job, part; there are {len(given)}: {words}"))
    if part.of and not part.part:
        wrong.append(("of", "belongs to a station: name the signal with the part's id in `part`"))
    if part.nested and part.split:
        wrong.append(("nested", "give `nested` (one id for all) or `split` (their ids in one text), not both"))
    if isinstance(part.nested, int) and not 0 <= part.nested <= MOST_NESTED:
        wrong.append(("nested", f"must be 0 to {MOST_NESTED} parts, or the signal that says how many"))
    if (part.nested or part.split) and not part.id:
        wrong.append(("nested" if part.nested else "split", "needs `id`"))
    told = Counter(name for kind in TELLING for name in getattr(part, kind))
    for kind in TELLING:
        wrong += [(kind, f"{name!r} tells two kinds of event") for name in getattr(part, kind) if told[name] > 1]
    if not part.makes and not told:
        wrong.append(("part", f"says nothing of its parts: name signals in {', '.join(TELLING)}"))
    if part.remember < 0:
        wrong.append(("remember", "must not be negative"))
    try:
        span_ns(part.longest)
    except ValueError as e:
        wrong.append(("longest", str(e)))
    return wrong
