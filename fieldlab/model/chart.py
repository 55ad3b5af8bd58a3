"""What a control chart shows: its points and its limits."""

import msgspec

from fieldlab.model.place import Place


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Frozen limits of one chart on one signal. A version is never changed; a new one replaces it.

    Attributes:
        version: 1 for the first; 0 means not frozen yet.
        center: centre line, in the statistic's unit.
        ucl: upper control limit (steady state).
        lcl: lower control limit (steady state).
        sigma: standard deviation of one charted value.
        n: values that the limits were learned from.
        time: event time of the freeze, ns.
        note: how they were designed, in words.
        recipe: what ran: the recipe, tool or program whose limits these are; empty where a chart has one set.
        by: who froze them; empty if the chart itself did at the end of its baseline.
    """

    version: int
    center: float
    ucl: float
    lcl: float
    sigma: float
    n: int
    time: int = 0
    note: str = ""
    recipe: str = ""
    by: str = ""


class ChartPoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A point of a control chart: a row of the measurement `chart`.

    While limits are being learned, `limits_version` is 0 and centre and limits are absent.
    """

    time: int
    place: Place
    signal: str
    chart: str
    statistic: float
    center: float | None = None
    ucl: float | None = None
    lcl: float | None = None
    limits_version: int = 0
