import numpy as np
import pytest
from scipy import stats

from analytics.distributions import normal_cdf, normal_pdf, normal_quantile, t_quantile, t_upper_tail


@pytest.mark.parametrize("p", [1e-6, 0.01, 0.5, 0.99865, 1 - 1e-6])
def test_normal_quantile(p: float) -> None:
    assert normal_quantile(p) == pytest.approx(stats.norm.ppf(p), rel=1e-9, abs=1e-12)


def test_normal() -> None:
    x = np.linspace(-8, 8, 33)
    assert normal_cdf(x) == pytest.approx(stats.norm.cdf(x), rel=1e-12)
    assert normal_pdf(x) == pytest.approx(stats.norm.pdf(x), rel=1e-12)


@pytest.mark.parametrize("nu", [1, 2, 5, 29, 99, 1000])
@pytest.mark.parametrize("p", [0.5, 0.75, 0.975, 0.99865, 0.999999])
def test_t_quantile(nu: float, p: float) -> None:
    assert t_quantile(p, nu) == pytest.approx(stats.t.ppf(p, nu), rel=1e-9, abs=1e-12)
    assert t_upper_tail(3.0, nu) == pytest.approx(stats.t.sf(3.0, nu), rel=1e-10)
