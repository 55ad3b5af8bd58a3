"""Control charts, one file a kind. A bank judges one chart on many channels; a vector kind, many channels together."""

from collections.abc import Callable

from analytics.charts.attributes import CountBank
from analytics.charts.base import ChartBank, Judgement
from analytics.charts.cusum import CusumBank
from analytics.charts.cva import CvaChart
from analytics.charts.ewma import EwmaBank
from analytics.charts.individuals import IndividualsBank
from analytics.charts.mewma import MewmaChart
from analytics.charts.pca import PcaChart
from analytics.charts.residual import ResidualBank
from analytics.charts.short_run import ShortRunBank
from analytics.charts.t2 import HotellingChart
from analytics.charts.vector import VectorKind
from analytics.charts.xbar import XbarBank
from analytics.config import COUNT_KINDS, ChartConfig

_KINDS: dict[str, Callable[[ChartConfig], ChartBank]] = {
    "individuals": IndividualsBank,
    "xbar-r": XbarBank,
    "xbar-s": XbarBank,
    "ewma": EwmaBank,
    "cusum": CusumBank,
    "residual": ResidualBank,
    "short-run": ShortRunBank,
    **dict.fromkeys(COUNT_KINDS, CountBank),
}
_VECTOR_KINDS: dict[str, Callable[[ChartConfig], VectorKind]] = {
    "t2": lambda _: HotellingChart(),
    "mewma": lambda config: MewmaChart(config.lambda_),
    "pca": lambda _: PcaChart(),
    "cva": lambda config: CvaChart(config.lags, config.lambda_),
}


def make_bank(config: ChartConfig) -> ChartBank:
    """An empty bank for a chart.

    Raises:
        KeyError: if the kind is not built; `analytics.config.validate` says so in words first.
    """
    return _KINDS[config.kind](config)


def make_vector_kind(config: ChartConfig) -> VectorKind:
    """The mathematics of a multivariate chart.

    Raises:
        KeyError: if it is not multivariate.
    """
    return _VECTOR_KINDS[config.kind](config)


__all__ = ["ChartBank", "Judgement", "VectorKind", "make_bank", "make_vector_kind"]
