"""The examples in the docstrings print what they say."""

import doctest
from importlib import import_module

import pytest

MODULES = [
    "arl", "constants", "counts", "distributions", "limits", "nelson", "channels", "calibration", "charts.individuals",
    "charts.xbar", "charts.attributes", "charts.ewma", "charts.cusum", "charts.residual", "charts.short_run",
    "charts.t2", "charts.mewma", "charts.pca", "charts.cva", "capability", "stability", "normality", "pearson",
    "yields", "msa", "guardband", "health.runs", "health.reference",
    "trend", "trend_runner", "oee",
]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(import_module(f"analytics.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
