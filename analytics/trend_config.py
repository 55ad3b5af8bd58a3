"""The table `[[trend]]`, and the trends that are watched without one."""

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from fieldlab.model import SignalInfo

IN_UNIT = ("mean", "last", "min", "max")  # features that a limit can be compared with
KINDS = ("individuals", "ewma", "cusum", "residual", "xbar-r", "xbar-s")  # charts whose signals are watched by default
WINDOW = "1min"
TREND = "_trend"  # the chart of every finding about a trend


class TrendConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A `[[trend]]`: warns before a signal reaches a limit.

    Attributes:
        signals: globs over `machine/signal`.
        per: what gives one value: `part`, or a window such as `5min`. Empty: `part` where the machine has a `[[part]]`,
            else `1min`.
        feature: mean, last, min or max of the readings in it.
        lower: lower limit; absent: the lower specification limit.
        upper: upper limit; absent: the upper specification limit.
        baseline: values to learn the noise from; no trend is told before. 0: 40 parts, 60 windows.
        warn: a limit within so many values is told.
        reset: globs over `machine/signal`: a change of such a signal (a tool, a nozzle) starts afresh.
        propose: what to do, in words; absent: made from what is known.
        on: whether it is watched; `on = false` takes signals out of those that are watched by default.
    """

    signals: tuple[str, ...]
    per: str = ""
    feature: str = "mean"
    lower: float | None = None
    upper: float | None = None
    baseline: int = 0
    warn: int = 30
    reset: tuple[str, ...] = ("*/*tool*", "*/*nozzle_id*")
    propose: str = ""
    on: bool = True

    @property
    def label(self) -> str:
        """Its name: the tag `chart` is `_trend` for all."""
        return f"{TREND} {self.feature} {self.per} {' '.join(self.signals)}"

    def names(self, short: str) -> bool:
        """Whether it names `machine/signal`."""
        return any(fnmatchcase(short, pattern) for pattern in self.signals)

    def limits(self, info: SignalInfo) -> tuple[float | None, float | None]:
        """Lower and upper limit of a signal."""
        return info.lsl if self.lower is None else self.lower, info.usl if self.upper is None else self.upper


def watched(trends: Sequence[TrendConfig], charts: Sequence[Any]) -> list[TrendConfig]:
    """The configured trends, and those of every signal with a chart on its mean, last, lowest or highest value.

    Args:
        trends: the `[[trend]]` tables.
        charts: the `[[chart]]` tables (`analytics.config.ChartConfig`).
    """
    named: dict[tuple[str, str], list[str]] = {}
    for chart in charts:
        if chart.kind in KINDS and chart.feature in IN_UNIT and not chart.phase:
            per = chart.per if chart.per in ("", "part") else WINDOW
            known = named.setdefault((per, chart.feature), [])
            known += [s for s in chart.signals if s not in known]
    return [*trends, *(TrendConfig(signals=tuple(s), per=per, feature=f) for (per, f), s in named.items())]


def errors(trends: Sequence[TrendConfig], span_ns: Callable[[str], int]) -> Iterator[tuple[str, str]]:
    """What is wrong that types cannot say: (dotted key, what and what to do)."""
    for i, trend in enumerate(trends):
        yield from ((f"trend[{i}].{key}", words) for key, words in _errors(trend, span_ns))


def _errors(trend: TrendConfig, span_ns: Callable[[str], int]) -> Iterator[tuple[str, str]]:
    if not trend.signals:
        yield "signals", "names no signal; write machine/signal, globs allowed"
    for key in ("signals", "reset"):
        yield from ((key, f"{s!r} must be machine/signal") for s in getattr(trend, key) if s.count("/") != 1)
    if trend.feature not in IN_UNIT:
        yield "feature", f"{trend.feature!r} has no limit to compare with; there are {', '.join(IN_UNIT)}"
    if trend.per == "reading":
        yield "per", 'readings one by one are no trend; give a window such as "10s", or "part"'
    elif trend.per not in ("", "part"):
        try:
            span_ns(trend.per)
        except ValueError as e:
            yield "per", f'{e}, or "part"'
    if trend.baseline and not 20 <= trend.baseline <= 60:
        yield "baseline", "must be 20 to 60 values; usual are 40 parts, or 60 windows"
    if trend.warn < 1:
        yield "warn", "must be 1 value or more; usual is 30"
    if trend.lower is not None and trend.upper is not None and not trend.lower < trend.upper:
        yield "upper", "must be above `lower`"
