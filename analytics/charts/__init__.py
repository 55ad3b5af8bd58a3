"""Control charts, one file a kind. A bank judges one chart on many channels (signals) at once."""

from collections.abc import Callable

from analytics.charts.base import ChartBank, Judgement
from analytics.charts.ewma import EwmaBank
from analytics.charts.individuals import IndividualsBank
from analytics.config import ChartConfig

_KINDS: dict[str, Callable[[ChartConfig], ChartBank]] = {"individuals": IndividualsBank, "ewma": EwmaBank}


def make_bank(config: ChartConfig) -> ChartBank:
    """An empty bank for a chart.

    Raises:
        KeyError: if the kind is not built; `analytics.config.validate` says so in words first.
    """
    return _KINDS[config.kind](config)


__all__ = ["ChartBank", "Judgement", "make_bank"]
