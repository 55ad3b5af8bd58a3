"""How many false alarms charts are designed to give: a chart's ARL0, and the load of a machine in a shift."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

import msgspec

from analytics.config import COUNT_KINDS, RULED_KINDS, VECTOR_KINDS, XBAR_KINDS, AnalyticsConfig, ChartConfig, span_ns
from analytics.limits import SHEWHART_ARL0


class ChartLoad(msgspec.Struct, frozen=True):
    """One chart on one machine.

    Attributes:
        chart: its name.
        channels: signals that it is on; 1 if it is multivariate.
        arl0: values of a channel to a false alarm; None if it shares its machine's and nothing says how many values
            there are.
        each: what a value is: `part`, `reading`, or a window such as `10s`; with `subgroups of n` of them.
        a_shift: false alarms in a shift, all channels together; None if nothing says how many values there are.
    """

    chart: str
    channels: int
    arl0: float | None
    each: str
    a_shift: float | None


def nominal_arl0(chart: ChartConfig) -> float:
    """Values (or subgroups, vectors) of one channel to a false alarm, by the chart's own design."""
    if chart.design_arl0:
        return chart.design_arl0
    own = float(chart.rule_set.arl()) if chart.kind in RULED_KINDS else SHEWHART_ARL0
    if chart.kind in XBAR_KINDS and not chart.rule_set.limit_alone:
        return 1 / (1 / own + 0.5 / SHEWHART_ARL0)
    return own


def machine_load(config: AnalyticsConfig, machine: str, signals: Iterable[str]) -> list[ChartLoad]:
    """The charts of one machine.

    Args:
        config: charts, and what they share.
        machine: its name.
        signals: its signals, as `machine/signal`.
    """
    found = [(c, _channels(c, signals)) for c in config.charts]
    on = [(c, n) for c, n in found if n]
    sharing = sum(n for c, n in on if c.design_arl0 is None)
    shift = span_ns(config.shift)
    loads: list[ChartLoad] = []
    for chart, channels in on:
        each = _each(chart, config, machine)
        values = shift / span_ns(each) / max(chart.subgroup, 1) if each not in ("part", "reading") else None
        arl0: float | None = nominal_arl0(chart)
        a_shift = values * channels / arl0 if values is not None and arl0 else None
        if config.false_alarms is not None and chart.design_arl0 is None:
            a_shift = config.false_alarms * channels / sharing
            arl0 = values * channels / a_shift if values is not None else None
        if chart.subgroup > 1:
            each = f"{each}, subgroups of {chart.subgroup}"
        loads.append(ChartLoad(chart.label, channels, arl0, each, a_shift))
    return loads


def in_words(loads: list[ChartLoad], shift: str) -> str:
    """One line for people."""
    known = [load.a_shift for load in loads if load.a_shift is not None]
    told = []
    for load in loads:
        many = f" on {load.channels} signals" if load.channels > 1 else ""
        rate = f"1 in {load.arl0:.0f} ({load.each})" if load.arl0 else f"{load.a_shift:.2g} a shift ({load.each})"
        told.append(f"{load.chart}{many}: {rate}")
    rest = "" if len(known) == len(loads) else f", and what {len(loads) - len(known)} charts of parts or readings add"
    total = f"{sum(known):.2g} by design in a shift of {shift}{rest}" if known else "by design"
    return f"{total}; {'; '.join(told)}"


def _channels(chart: ChartConfig, signals: Iterable[str]) -> int:
    count = sum(any(fnmatchcase(s, glob) for glob in chart.signals) for s in signals)
    return min(count, 1) if chart.kind in VECTOR_KINDS else count


def _each(chart: ChartConfig, config: AnalyticsConfig, machine: str) -> str:
    """What one value of a chart is."""
    if chart.per:
        return chart.per
    if chart.kind in COUNT_KINDS:
        return "reading"
    parts = config.part_of(machine) is not None and chart.kind not in VECTOR_KINDS
    return "part" if parts else "10s"
