"""The tables `[[chart]]` and `[[part]]`, and everything that judgement is told: `AnalyticsConfig`."""

import hashlib
import re
from collections import Counter
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from analytics.limits import longest_arl0
from analytics.rules import RULES, rule_mask
from fieldlab.model import SignalInfo

VECTOR_KINDS = ("t2", "mewma", "pca", "cva")  # one chart on all its signals of a machine together
KINDS = ("individuals", "ewma", *VECTOR_KINDS)
PLANNED_KINDS = ("xbar-s", "xbar-r", "cusum", "p", "np", "c", "u")
Feature = Literal["mean", "last", "min", "max", "range", "std", "duration"]
MIN_BASELINE = 10

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
        feature: what is charted of the readings in that window.
        subgroup: values to a subgroup; 1 for the kinds that are built.
        baseline: values to learn limits from.
        limits_file: frozen limits instead of a baseline; not built yet.
        rules: `western-electric`, or a list of its rule numbers; only for individuals. Empty: rule 1.
        false_alarm_rate: designed false alarms a charted value; or give `arl0`.
        arl0: designed number of in-control values to a false alarm. Absent: 370.4; what the run rules have at 3 sigma
            if there are any beyond rule 1.
        on_unstable: what to do with a baseline that is unstable or autocorrelated.
        lambda_: smoothing constant of an EWMA or MEWMA; the key is `lambda`.
        lags: vectors that CVA looks back, and ahead while it learns.
        drop_drifting: multivariate: leave out channels that drift in the baseline (see `analytics.channels`). Absent:
            yes, but for `cva`, which models slow channels.
    """

    name: str = ""
    kind: str = "individuals"
    signals: tuple[str, ...]
    per: str = ""
    feature: Feature = "mean"
    subgroup: int = 1
    baseline: int = 100
    limits_file: str = ""
    rules: str | tuple[str, ...] = ()
    false_alarm_rate: float | None = None
    arl0: float | None = None
    on_unstable: Literal["refuse", "warn"] = "refuse"
    lambda_: float = msgspec.field(default=0.2, name="lambda")
    lags: int = 3
    drop_drifting: bool | None = None

    @property
    def label(self) -> str:
        """The chart's name; made from kind and signals if it has none."""
        return self.name or f"{self.kind} {' '.join(self.signals)}"

    @property
    def rule_names(self) -> tuple[str, ...]:
        """The Western Electric rules in force."""
        names = (self.rules,) if isinstance(self.rules, str) else self.rules
        if names == ("western-electric",):
            return RULES
        return names or ("1",)

    @property
    def drops_drifting(self) -> bool:
        """Whether channels that drift in the baseline are left out."""
        return self.kind != "cva" if self.drop_drifting is None else self.drop_drifting

    @property
    def design_arl0(self) -> float | None:
        """The designed ARL0, if one is set."""
        return 1.0 / self.false_alarm_rate if self.false_alarm_rate else self.arl0


class PartConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[part]]`: how the parts of a machine are told apart. Exactly one of id, counter, state, job is set.

    Attributes:
        machine: the machine's name; globs allowed.
        id: signal whose change starts a new part, and whose value is its id. Empty text: no part is being made.
        counter: signal that counts parts; a change starts part `machine-<count>`.
        state: text of the signal `state` during which a part is made; its id is `machine-<start time>`.
        job: text signal with the job's name; a change starts part `<job>-<start time>`.
        genealogy: signals that ride along, such as the tool and the material lot.
        longest: a part that lasts longer, while readings come in, is a finding `part-id` (a warning).
    """

    machine: str
    id: str = ""
    counter: str = ""
    state: str = ""
    job: str = ""
    genealogy: tuple[str, ...] = ()
    longest: str = "1h"

    @property
    def signal(self) -> str:
        """The signal that is watched."""
        return self.id or self.counter or self.job or ("state" if self.state else "")


class AnalyticsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that judgement is told; the `detail` of a `Control(action="configure")`, by `msgspec.to_builtins`.

    Attributes:
        charts: see `ChartConfig`.
        parts: see `PartConfig`; the first that fits a machine counts.
        signals: what is known about signals: units, specification limits, texts of states.
        lateness: seconds that a reading may lag behind the newest of its machine and still be judged.
    """

    charts: tuple[ChartConfig, ...] = ()
    parts: tuple[PartConfig, ...] = ()
    signals: tuple[SignalInfo, ...] = ()
    lateness: float = 2.0

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
    for i, part in enumerate(config.parts):
        wrong += [(f"part[{i}].{key}", text) for key, text in _part_errors(part)]
    if config.lateness < 0:
        wrong.append(("lateness", "must not be negative"))
    return wrong


def _chart_errors(chart: ChartConfig, config: AnalyticsConfig) -> list[tuple[str, str]]:
    wrong: list[tuple[str, str]] = []
    built = f"built are {', '.join(KINDS)}"
    if chart.kind not in KINDS:
        planned = chart.kind in PLANNED_KINDS
        wrong.append(("kind", f"{chart.kind!r} is {'not built yet' if planned else 'no kind of chart'}; {built}"))
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
    if chart.subgroup != 1:
        wrong.append(
            ("subgroup", f"{chart.kind} charts take single values; subgroups need xbar charts (not built yet)")
        )
    if chart.limits_file:
        wrong.append(("limits_file", "not built yet; use `baseline`"))
    if chart.baseline < MIN_BASELINE:
        wrong.append(("baseline", f"{chart.baseline} values say too little; give at least {MIN_BASELINE}, better 100"))
    if not 0 < chart.lambda_ <= 1:
        wrong.append(("lambda", "must be above 0 and at most 1; usual are 0.05 to 0.3"))
    return wrong + _vector_errors(chart) + _rule_errors(chart) + _rate_errors(chart)


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
    if chart.kind == "ewma":
        zone = [rule for rule in chart.rule_names if rule != "1"]
        text = "zone rules do not hold on an EWMA: its values depend on each other. Leave `rules` out"
        return [("rules", text)] if zone else []
    if "nelson" in chart.rule_names:
        return [("rules", f"nelson is not built yet; use western-electric or a list of its rules {', '.join(RULES)}")]
    unknown = [rule for rule in chart.rule_names if rule not in RULES]
    if unknown:
        text = f"{unknown[0]!r} is unknown; use western-electric or a list of its rules {', '.join(RULES)}"
        return [("rules", text)]
    return []


def _rate_errors(chart: ChartConfig) -> list[tuple[str, str]]:
    if chart.arl0 is not None and chart.false_alarm_rate is not None:
        return [("arl0", "give arl0 or false_alarm_rate, not both: one is 1 / the other")]
    if chart.false_alarm_rate is not None and not 0 < chart.false_alarm_rate < 0.5:
        return [("false_alarm_rate", "must be above 0 and below 0.5 a charted value")]
    if chart.arl0 is not None and chart.arl0 <= 2:
        return [("arl0", "must be above 2 values to a false alarm")]
    if chart.design_arl0 is None or chart.kind != "individuals" or _rule_errors(chart):
        return []
    longest = longest_arl0(rule_mask(chart.rule_names))
    if chart.design_arl0 > longest:
        key = "arl0" if chart.arl0 is not None else "false_alarm_rate"
        names = ", ".join(chart.rule_names)
        text = f"with rules {names} no limits reach ARL0 {chart.design_arl0:.4g}; at most {longest:.4g}"
        return [(key, text)]
    return []


def _part_errors(part: PartConfig) -> list[tuple[str, str]]:
    wrong: list[tuple[str, str]] = []
    given = [key for key in ("id", "counter", "state", "job") if getattr(part, key)]
    if len(given) != 1:
        wrong.append(("id", f"give exactly one of id, counter, state, job; there are {len(given)}"))
    try:
        span_ns(part.longest)
    except ValueError as e:
        wrong.append(("longest", str(e)))
    return wrong
